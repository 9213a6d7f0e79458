from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from interfaces.garbage import none_while_importing


def missing() -> None:
    assert not gc.isenabled()
    raise ModuleNotFoundError


@pytest.mark.parametrize("was_on", [True, False])
def test_searches_go_on_as_before_whatever_an_import_raises(was_on: bool) -> None:
    if not was_on:
        gc.disable()
    try:
        with pytest.raises(ModuleNotFoundError), none_while_importing():
            missing()
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


def test_what_was_imported_is_not_searched_again() -> None:
    script = """
import gc, sys
from interfaces.garbage import none_while_importing
with none_while_importing():
    pass
print(gc.get_freeze_count() > 0)
with none_while_importing():
    import json.tool
print(gc.get_freeze_count() > 0, gc.isenabled())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True", "True"]
