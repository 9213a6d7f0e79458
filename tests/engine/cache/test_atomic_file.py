"""What the project writes is for its owner alone, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cache import atomic_file
from engine.cache.atomic_file import write_atomically
from engine.cache.engine_cache import load_or_build
from engine.cache.folders import make_private_folder
from engine.zoo import store


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_umask")
class TestPrivacy:
    def test_of_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        for content in (b"first", b"second"):
            write_atomically(path, content)
            assert mode(path) == 0o600
            assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]

    def test_of_folders_that_are_made(self, tmp_path: Path) -> None:
        folder = tmp_path / "a" / "b"
        make_private_folder(folder)
        make_private_folder(folder)
        assert mode(tmp_path / "a") == mode(folder) == 0o700

    def test_a_folder_that_is_there_stays_as_it_is(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        make_private_folder(tmp_path)
        assert mode(tmp_path) == 0o755

    def test_of_a_cache(self, tmp_path: Path) -> None:
        load_or_build(tmp_path / "cache", {"model": "m"}, lambda: b"payload")
        assert mode(tmp_path / "cache") == 0o600

    def test_of_an_exported_model(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # What the export computes is tested elsewhere, and takes seconds.
        monkeypatch.setattr(store, "export_classifier", lambda *_: b"model")
        monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(tmp_path / "new" / "cache"))
        path = store.exported_file("efficientnet_lite0")
        assert mode(path) == 0o600
        assert mode(path.parent) == mode(path.parent.parent) == 0o700


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def observed(handle: int) -> None:
        name = str(Path(f"/proc/self/fd/{handle}").readlink())
        synced.append((name, (tmp_path / "file").exists()))
        fsync(handle)

    monkeypatch.setattr(atomic_file.os, "fsync", observed)
    atomic_file.write_atomically(tmp_path / "file", b"content")
    (temporary, existed), (folder, exists) = synced
    assert temporary.startswith(str(tmp_path / ".file."))
    assert (existed, exists) == (False, True)
    assert folder == str(tmp_path)
