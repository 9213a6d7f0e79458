"""What is kept of an exception that is a result."""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Iterator

from service.errors import forget_variables


class Image:
    """What a call works on."""


def caught(image: Image) -> ValueError:
    """An exception with another behind it, whose frames and callers hold an image."""
    try:
        try:
            raise KeyError(image.__class__.__name__)
        except KeyError as error:
            raise ValueError("no image") from error
    except ValueError as error:
        return error


def test_variables_go_and_lines_stay() -> None:
    image = Image()
    kept = weakref.ref(image)
    error = caught(image)
    del image
    assert kept() is not None
    forget_variables(error)
    assert kept() is None
    for one in (error, error.__cause__):
        assert one is not None
        assert traceback.extract_tb(one.__traceback__)[0].name == "caught"


def test_what_goes_on_later_keeps_its_variables() -> None:
    def steps() -> Iterator[ValueError | str]:
        image = Image()
        yield caught(image)
        yield type(image).__name__

    going_on = steps()
    error = next(going_on)
    assert isinstance(error, ValueError)
    forget_variables(error)
    assert next(going_on) == "Image"
