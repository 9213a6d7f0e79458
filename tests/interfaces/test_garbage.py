from __future__ import annotations

import gc

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
