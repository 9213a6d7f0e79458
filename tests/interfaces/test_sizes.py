"""Sizes are shown in units of 2**10."""

import pytest

from interfaces.sizes import size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (71_500, "69.8 KiB"),
        (97.8 * 2**20, "97.8 MiB"),
        (-3.5 * 2**20, "-3.5 MiB"),
        (2**31, "2.0 GiB"),
        (5 * 2**50, "5120.0 TiB"),
    ],
)
def test_a_size_has_the_unit_that_suits_it(count: float, text: str) -> None:
    assert size_text(count) == text
