"""What is made once and kept: damaged files are rebuilt, and a full disk does not stop a server."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cache.checksummed_file import (
    UnusableFileError,
    checksum_file,
    kept_or_made,
    read_kept,
    write_kept,
)
from engine.cache.engine_cache import load_or_build
from tests.full_disk import ROOM_BYTES, full_disk

MOST = 2**20
CONTENT = bytes(range(256)) * 8


class TestReadKept:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        write_kept(tmp_path / "file", CONTENT)
        assert read_kept(tmp_path / "file", MOST) == CONTENT

    def test_the_checksum_is_one_that_sha256sum_checks(self, tmp_path: Path) -> None:
        write_kept(tmp_path / "file", CONTENT)
        command = ["sha256sum", "--check", "--strict", "file.sha256"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    def test_damage_is_seen(self, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        path = tmp_path / "file"
        write_kept(path, CONTENT)
        path.write_bytes(damage(CONTENT))
        with pytest.raises(UnusableFileError, match="its content is damaged"):
            read_kept(path, MOST)

    def test_damage_of_the_checksum_is_seen(
        self, tmp_path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        path = tmp_path / "file"
        write_kept(path, CONTENT)
        kept = checksum_file(path).read_bytes() * 3
        checksum_file(path).write_bytes(damage(kept)[:64][::-1])
        with pytest.raises(UnusableFileError, match="damaged"):
            read_kept(path, MOST)

    def test_without_a_checksum_only_a_foreign_file_is_used(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(CONTENT)
        assert read_kept(path, MOST, foreign=True) == CONTENT
        with pytest.raises(UnusableFileError, match=r"its checksum cannot be read: No such file"):
            read_kept(path, MOST)

    def test_what_is_no_file_is_unusable(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UnusableFileError, match="it is a named pipe"):
            read_kept(tmp_path / "pipe", MOST)
        with pytest.raises(FileNotFoundError):
            read_kept(tmp_path / "none", MOST)


class TestKeptOrMade:
    def test_a_damaged_file_is_made_again_with_one_line(
        self, tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "new" / "file"
        kept_or_made(path, MOST, lambda: CONTENT, "making it")
        path.write_bytes(damage(CONTENT))
        with caplog.at_level(logging.INFO):
            assert kept_or_made(path, MOST, lambda: CONTENT, "making it") == CONTENT
        (record,) = caplog.records
        assert record.getMessage() == (
            f"making it again: {path} cannot be used: its content is damaged"
        )
        assert read_kept(path, MOST) == CONTENT

    def test_a_full_disk_costs_the_file_and_nothing_else(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        content = os.urandom(2 * ROOM_BYTES)
        with full_disk(tmp_path / "disk") as disk:
            assert kept_or_made(disk / "file", MOST, lambda: content, "making it") == content
            assert list(disk.iterdir()) == []
        (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert line.startswith(f"cannot keep {disk / 'file'}: No space left on device")


class TestEngineCache:
    @pytest.mark.parametrize(("option", "reason"), [("", "No space left"), ("ro", "Read-only")])
    def test_serving_goes_on_where_it_cannot_be_written(
        self, tmp_path: Path, option: str, reason: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        payload = os.urandom(2 * ROOM_BYTES)
        with full_disk(tmp_path / "disk", *filter(None, [option])) as disk:
            assert load_or_build(disk / "cache", {"model": "m"}, lambda: payload) == payload
            assert list(disk.iterdir()) == []
        (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert line.startswith(f"cannot keep {disk / 'cache'}: {reason}")
        assert line.endswith("serving goes on without it")

    def test_a_file_that_may_grow_no_further(self, tmp_path: Path) -> None:
        """As with a disk quota, which needs no root to be tested."""
        code = (
            "import resource, sys, pathlib; from engine.cache.engine_cache import load_or_build;"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
            "path = pathlib.Path(sys.argv[1]);"
            "assert load_or_build(path, {}, lambda: bytes(2000)) == bytes(2000)"
        )
        path = tmp_path / "cache"
        result = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert "cannot keep" in result.stderr
        assert list(tmp_path.iterdir()) == []

    def test_brackets_without_end_in_the_header(self, tmp_path: Path) -> None:
        path = tmp_path / "cache"
        path.write_bytes(b"thriftpipe engine cache 1\n" + b"[" * 60_000 + b"\n")
        assert load_or_build(path, {}, lambda: b"new") == b"new"

    def test_no_thread_waits_for_a_named_pipe(self, tmp_path: Path) -> None:
        path = tmp_path / "cache"
        os.mkfifo(path)
        assert load_or_build(path, {}, lambda: b"new") == b"new"
        assert load_or_build(path, {}, lambda: b"newer") == b"new"
