"""The virtual environments of peers: made once, when asked for, and never by a measurement.

Each has its peer's own packages, pinned, and behind them those of this environment: engine, OpenCV,
NumPy and, where there is one, CUDA's torch are the same for all and are not fetched again.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
import time
from importlib.util import find_spec
from pathlib import Path

from interfaces.peers import Peer
from loadtest.errors import LoadTestError
from loadtest.processes.child_process import ChildProcess

_STAMP = ".installed"
_SHARED_PACKAGES = "packages-of-the-host.pth"
_INSTALL_TIMEOUT_S = 900.0


def source_folder() -> Path:
    """The folder in which peers find `peers` and what it imports.

    Raises:
        LoadTestError: the package is not there.
    """
    spec = find_spec("peers")
    if spec is None or not spec.submodule_search_locations:
        raise LoadTestError("the package 'peers' is not installed")
    return Path(spec.submodule_search_locations[0]).parent


def install(peer: Peer, folder: Path) -> None:
    """Make the environment of a peer, unless it is there with the same packages.

    Args:
        peer: which one.
        folder: of all environments.

    Raises:
        LoadTestError: a package cannot be installed on this Python or host.
    """
    home = folder / peer.name
    if not peer.requirements or _installed(peer, home):
        return
    shutil.rmtree(home, ignore_errors=True)
    title = f"installing {peer.distribution}"
    # Without a pip of its own, which takes longest to install.
    _run([sys.executable, "-m", "venv", "--without-pip", str(home)], title)
    words = ["--quiet", "--disable-pip-version-check", "--no-input", *peer.pip_options]
    words += ["--constraint", str(_constraints(peer)), *peer.requirements]
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    _run([*pip, "install", *words], title)
    # After the installation: pip would take the host's packages for the environment's own.
    own = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(home)}))
    (own / _SHARED_PACKAGES).write_text(sysconfig.get_path("purelib") + "\n")
    if peer.first_run:
        _run([str(home / "bin" / "python"), "-c", peer.first_run], f"preparing {peer.distribution}")
    (home / _STAMP).write_text(_contents(peer))


def interpreter(peer: Peer, folder: Path) -> Path:
    """The interpreter of a peer's environment.

    Raises:
        LoadTestError: it was not made, or for other packages.
    """
    if not peer.requirements:
        return Path(sys.executable)
    home = folder / peer.name
    if not _installed(peer, home):
        raise LoadTestError(
            f"{peer.distribution} is not installed in {str(folder)!r}; "
            f"`python -m loadtest install_peers --peers {peer.name}` does it"
        )
    return home.absolute() / "bin" / "python"


def _installed(peer: Peer, home: Path) -> bool:
    stamp = home / _STAMP
    return stamp.is_file() and stamp.read_text() == _contents(peer)


def _constraints(peer: Peer) -> Path:
    return source_folder() / "peers" / "constraints" / f"{peer.name}.txt"


def _contents(peer: Peer) -> str:
    """What the environment was made of: other versions or another host make another one."""
    host = [sys.version, sysconfig.get_path("purelib")]
    return "\n".join([*host, *peer.requirements, _constraints(peer).read_text(encoding="utf-8")])


def _run(command: list[str], title: str) -> None:
    """Run a command to its end; LoadTestError where it fails."""
    end_s = time.monotonic() + _INSTALL_TIMEOUT_S
    with ChildProcess(command, title) as process:
        while process.next_line(end_s, f"took longer than {_INSTALL_TIMEOUT_S:g} s"):
            pass
        if process.wait(_INSTALL_TIMEOUT_S) != 0:
            raise LoadTestError(process.ended())
