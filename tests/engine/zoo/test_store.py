"""Exported models in the cache folder: damage, and a full disk."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from engine.cache.checksummed_file import (
    write_kept,
)
from engine.cache.folders import spare_folder
from engine.errors import EngineError
from engine.zoo import store
from engine.zoo.__main__ import main
from tests.full_disk import full_disk

CONTENT = bytes(range(256)) * 8


class TestZoo:
    @pytest.fixture
    def exports(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
        """How often a model was exported: a small one, as the real ones take seconds."""
        made: list[str] = []

        def export(*_: object) -> bytes:
            made.append("export")
            return CONTENT * 64

        monkeypatch.setattr(store, "export_classifier", export)
        monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
        (tmp_path / "tmp").mkdir()
        return made

    def test_a_damaged_export_is_made_again(
        self,
        exports: list[str],
        damage: Callable[[bytes], bytes],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        path = store.exported_file("efficientnet_lite0")
        assert store.exported_file("efficientnet_lite0") == path
        assert len(exports) == 1
        path.write_bytes(damage(path.read_bytes()))
        assert store.exported_file("efficientnet_lite0").read_bytes() == CONTENT * 64
        assert len(exports) == 2
        (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert "exporting efficientnet_lite0 again" in line

    def test_a_full_disk_leads_to_the_spare_folder(
        self,
        exports: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with full_disk(tmp_path / "disk") as disk:
            monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(disk / "cache"))
            for _ in range(2):
                path = store.exported_file("efficientnet_lite0")
                assert path.parent == spare_folder()
                assert path.read_bytes() == CONTENT * 64
                assert list((disk / "cache").iterdir()) == []
            assert len(exports) == 1
            (line, _) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
            assert "No space left on device" in line
            assert "THRIFTPIPE_CACHE_DIR names another folder" in line
        # With room again the file goes where it belongs.
        monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(tmp_path / "cache"))
        assert store.exported_file("efficientnet_lite0").parent == tmp_path / "cache"
        assert len(exports) == 1

    @pytest.mark.usefixtures("exports")
    def test_no_room_anywhere_is_one_clear_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with full_disk(tmp_path / "disk") as disk:
            monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(disk / "cache"))
            monkeypatch.setattr(tempfile, "gettempdir", lambda: str(disk))
            with pytest.raises(EngineError, match=r"No space left .* nor .*; free some space"):
                store.exported_file("efficientnet_lite0")

    def test_a_spare_folder_that_others_may_write_to_is_not_used(
        self, exports: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spare_folder().mkdir()
        spare_folder().chmod(0o777)
        name = store.exported_file("efficientnet_lite0").name
        write_kept(spare_folder() / name, b"a user's own model")
        with full_disk(tmp_path / "disk") as disk:
            monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(disk / "cache"))
            with pytest.raises(EngineError, match="others than its user may write to"):
                store.exported_file("efficientnet_lite0")
        assert len(exports) == 2


def test_a_real_export_goes_on_when_the_disk_is_full(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The whole way of the command line: from the export to a model that loads."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with full_disk(tmp_path / "disk") as disk:
        monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(disk / "cache"))
        assert main(["export", "efficientnet_lite0"]) == 0
    assert "No space left on device" in caplog.text
    onnx.checker.check_model(onnx.load(capsys.readouterr().out.strip()))
