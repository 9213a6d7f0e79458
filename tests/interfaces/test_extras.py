"""The table of extras is that of setup.cfg, and a program without them says what to install."""

from __future__ import annotations

import configparser
import re
from importlib.metadata import files
from pathlib import Path

import pytest

from interfaces.extras import MODULES, packages_of

SETUP = Path(__file__).parents[2] / "setup.cfg"


def modules_of(package: str) -> set[str]:
    """What can be imported of it; from its files, since not every package has a list of its own."""
    return {path.parts[0].removesuffix(".py") for path in files(package) or ()}


def test_every_package_of_these_extras_is_in_the_table() -> None:
    config = configparser.ConfigParser()
    config.read(SETUP)
    for extra, modules in MODULES.items():
        lines = config["options.extras_require"][extra].splitlines()
        wanted = {re.split(r"[<>=]", line)[0] for line in lines if line and line[0] != "#"}
        installed = {package: modules_of(package) for package in wanted}
        assert all(names & set(modules) for names in installed.values()), installed
        # locust's own, which is imported by name.
        assert set(modules) - set().union(*installed.values()) <= {"gevent"}


def test_a_missing_package_ends_a_program_with_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended, packages_of("server", "bench"):
        raise ModuleNotFoundError("No module named 'cv2.gapi'", name="cv2.gapi")
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: the package 'cv2' is not installed: pip install 'thriftpipe[server,bench]'\n"
    )


def test_what_is_imported_as_a_library_raises_the_same() -> None:
    with (
        pytest.raises(ModuleNotFoundError, match=r"pip install 'thriftpipe\[server\]'") as caught,
        packages_of("server", is_program=False),
    ):
        raise ModuleNotFoundError("No module named 'cv2'", name="cv2")
    assert caught.value.name == "cv2"


def test_another_module_that_is_missing_is_told_as_it_is() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'mine'"), packages_of("server"):
        raise ModuleNotFoundError("No module named 'mine'", name="mine")
