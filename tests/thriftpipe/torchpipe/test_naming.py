"""The names under which the package is found, and programs in which nothing has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import thriftpipe
from thriftpipe.torchpipe.__main__ import main
from thriftpipe.torchpipe.naming import LentNames

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
import {first}
import torchpipe as tp
from torchpipe import TASK_DATA_KEY, pipe
from torchpipe.utils.test import Sampler
import torchpipe.libipipe as _C
from omniback.utils.test import test_from_raw_file
import torchpipe.utils.models

item = {{TASK_DATA_KEY: 3}}
pipe({{"node": {{"backend": "Identity"}}}})(item)
print(item["result"], tp.__name__, sys.argv[1:], tp.utils.test.Sampler is Sampler)
"""


@pytest.mark.parametrize(
    ("first", "arguments"),
    [
        ("thriftpipe.torchpipe as torchpipe", ["program.py", "a"]),
        ("torchpipe", ["-m", "thriftpipe.torchpipe", "program.py", "a"]),
    ],
)
def test_one_changed_line_or_none_lets_a_program_run(
    first: str, arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.format(first=first))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 thriftpipe.torchpipe ['a'] True\n"


def test_the_front_door_alone_loads_nothing() -> None:
    program = "import sys, thriftpipe; print(thriftpipe.__version__, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{thriftpipe.__version__} False\n"


def test_an_installed_torchpipe_comes_first_but_for_a_program_that_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchpipe").mkdir()
    (tmp_path / "torchpipe" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "torchpipe", raising=False)
    polite, greedy = LentNames(before_installed=False), LentNames(before_installed=True)
    assert polite.find_spec("torchpipe", None) is not None
    assert polite.find_spec("torchpipe.no_such", None) is None
    assert polite.find_spec("json", None) is None
    monkeypatch.syspath_prepend(tmp_path)
    assert polite.find_spec("torchpipe", None) is None
    assert greedy.find_spec("torchpipe", None) is not None


def test_a_program_that_cannot_be_run_is_told() -> None:
    for arguments, words in (([], "usage:"), (["-x"], "usage:"), (["no.py"], "no.py: no such")):
        with pytest.raises(SystemExit, match=words):
            main(arguments)
