"""The folder of a server's processes: gone with the server, and after a killed one."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.processes.shared_folder import SharedFolder, remove_leftovers, short_path

NULL = ("-m", "service", "--handler", "null", "--port", "0", "--workers", "2")
# Also root is kept out of folders by their modes then (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH).
WITHOUT_PRIVILEGES = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

Start = Callable[..., Any]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    # Where this process has looked already.
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def test_a_server_leaves_no_folder(start: Start, temporary: Path) -> None:
    server = start(*NULL)
    server.port()
    (folder,) = temporary.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    server.process.terminate()
    assert server.wait() == 0
    assert list(temporary.iterdir()) == []


def test_that_of_a_killed_one_is_removed_by_the_next_and_no_other(
    start: Start, temporary: Path
) -> None:
    killed = start(*NULL)
    killed.port()
    killed.process.kill()
    killed.wait()
    (leftover,) = temporary.iterdir()
    (leftover / "0123.sock").touch()
    (leftover / "0123.lock").touch()
    (leftover / "0123.json").touch()
    alive = SharedFolder()
    link = temporary / "thriftpipe-server-link"
    link.symlink_to(leftover)
    users = temporary / "thriftpipe-server-notes"
    users.mkdir()
    (users / "notes.lock").write_text("mine")
    server = start(*NULL)
    server.port()
    assert not leftover.exists()
    assert link.is_symlink()
    assert (users / "notes.lock").read_text() == "mine"
    assert alive.path.is_dir()
    alive.close()
    assert not alive.path.exists()
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert set(temporary.iterdir()) == {link, users}


def test_a_folder_that_cannot_be_read_is_one_line(start: Start, temporary: Path) -> None:
    temporary.chmod(0o300)
    server = start("-c", WITHOUT_PRIVILEGES, *NULL)
    server.port()
    server.process.terminate()
    assert server.wait() == 0
    temporary.chmod(0o700)
    (line,) = [line for line in server.log.splitlines() if "WARNING" in line]
    assert f"cannot look into TMPDIR = {temporary} for" in line
    assert line.endswith("Permission denied")
    assert list(temporary.iterdir()) == []


def test_what_the_server_did_not_make_is_never_removed(temporary: Path) -> None:
    del temporary
    folder = SharedFolder()
    (folder.path / "report.txt").write_text("mine")
    folder.close()
    remove_leftovers()
    assert (folder.path / "report.txt").read_text() == "mine"


def test_no_link_in_it_is_followed(temporary: Path, tmp_path: Path) -> None:
    del temporary
    target = tmp_path / "target.lock"
    target.write_text("mine")
    folder = SharedFolder()
    (folder.path / "link.lock").symlink_to(target)
    folder.close()
    assert not folder.path.exists()
    assert target.read_text() == "mine"


def test_a_socket_in_a_folder_with_a_long_name_can_be_bound(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    with short_path(folder, "a.sock") as path, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    assert (folder / "a.sock").is_socket()
