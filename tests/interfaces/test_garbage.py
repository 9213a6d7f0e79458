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


def test_garbage_of_before_an_import_goes_after_it() -> None:
    """An image that a cycle holds, such as that of an exception, counts as decoded until then."""
    script = """
import gc, weakref
from interfaces.garbage import none_while_importing
class Image: pass
image = Image()
image.itself = image
is_there = weakref.ref(image)
del image
with none_while_importing():
    import json.tool
gc.collect()
print(is_there() is None, gc.isenabled())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]
