"""Peers' virtual environments: their own packages first, those of the host behind them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from interfaces.peers import PEERS
from loadtest.errors import LoadTestError
from loadtest.servers.environments import install, interpreter

MOSEC = next(peer for peer in PEERS if peer.name == "mosec")
OFFLINE = ("--no-index", "--no-deps")


def _wheel(folder: Path) -> Path:
    """A package `psutil` that is none: the host's must not take its place."""
    path = folder / "psutil-99.0-py3-none-any.whl"
    info = "psutil-99.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("psutil.py", "own = True\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: psutil\nVersion: 99.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def test_an_environment_is_made_once_and_found(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    peer = replace(
        MOSEC,
        requirements=(str(_wheel(tmp_path)),),
        pip_options=OFFLINE,
        first_run=f"import psutil; open({str(ran)!r}, 'w').write(str(psutil.own))",
    )
    with pytest.raises(LoadTestError, match=r"not installed in .*install_peers --peers mosec"):
        interpreter(peer, tmp_path)
    install(peer, tmp_path)
    assert ran.read_text() == "True"
    python = interpreter(peer, tmp_path)
    code = "import psutil, numpy; print(psutil.own, bool(numpy.__version__))"
    said = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "True True\n"
    made_ns = python.parent.stat().st_mtime_ns
    install(peer, tmp_path)
    assert python.parent.stat().st_mtime_ns == made_ns
    with pytest.raises(LoadTestError, match="not installed"):
        interpreter(replace(peer, requirements=("mosec",)), tmp_path)


def test_what_pip_says_is_told(tmp_path: Path) -> None:
    peer = replace(MOSEC, requirements=("no-such-package",), pip_options=OFFLINE)
    with pytest.raises(LoadTestError, match=r"installing mosec ended .*no-such-package"):
        install(peer, tmp_path)
    with pytest.raises(LoadTestError, match="not installed"):
        interpreter(peer, tmp_path)


def test_a_peer_without_requirements_has_this_interpreter(tmp_path: Path) -> None:
    peer = replace(MOSEC, requirements=())
    install(peer, tmp_path)
    assert interpreter(peer, tmp_path) == Path(sys.executable)
    assert not [*tmp_path.iterdir()]
