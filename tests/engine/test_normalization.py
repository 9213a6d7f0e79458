from __future__ import annotations

import pytest

from engine.errors import EngineError
from engine.normalization import Normalization


@pytest.mark.parametrize("mean", [(1.0, 2.0), (), (1.0,) * 4])
def test_takes_one_value_or_three(mean: tuple[float, ...]) -> None:
    with pytest.raises(EngineError, match="mean takes 1 value or 3"):
        Normalization(mean, (1.0,))


@pytest.mark.parametrize("std", [(0.0,), (1.0, 0.0, 1.0), (-1.0,)])
def test_refuses_to_divide_by_zero(std: tuple[float, ...]) -> None:
    with pytest.raises(EngineError, match="std must be positive"):
        Normalization((0.0,), std)


def test_refuses_what_is_not_a_number() -> None:
    with pytest.raises(EngineError, match="mean takes finite numbers, got nan"):
        Normalization((float("nan"),), (1.0,))


def test_one_value_stands_for_all_channels() -> None:
    assert Normalization((10.0,), (20.0,)).per_channel() == ((10.0,) * 3, (20.0,) * 3)


@pytest.mark.parametrize(
    ("mean", "std", "times_255"),
    [
        (
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
            "mean 123.675,116.28,103.53 and std 58.395,57.12,57.375",
        ),
        ((0.5,), (0.5,), "mean 127.5 and std 127.5"),
        ((0.0,), (1 / 255,), "mean 0 and std 1"),
        ((0.5,), (1.0,), "mean 127.5 and std 255"),
        ((-1.0, 0.0, 0.0), (2.0,), "mean -255,0,0 and std 510"),
    ],
)
def test_values_for_pixels_of_0_to_1_are_refused_with_their_255fold(
    mean: tuple[float, ...], std: tuple[float, ...], times_255: str
) -> None:
    with pytest.raises(EngineError, match=f"give both times 255: {times_255}$"):
        Normalization(mean, std)


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        ((123.675, 116.28, 103.53), (0.229, 0.224, 0.225), "std times 255: std 58.395,"),
        ((0.485, 0.456, 0.406), (58.395, 57.12, 57.375), "mean times 255: mean 123.675,"),
        ((128.0,), (0.5,), "std times 255: std 127.5"),
    ],
)
def test_of_mixed_units_the_one_for_pixels_of_0_to_1_is_named(
    mean: tuple[float, ...], std: tuple[float, ...], told: str
) -> None:
    with pytest.raises(EngineError, match=f"give {told}"):
        Normalization(mean, std)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.0,), (1.0,)),
        ((1.0,), (1.0,)),
        ((0.0,), (255.0,)),
        ((0.0,), (2.0,)),
        ((127.5,), (127.5,)),
        ((103.94, 116.78, 123.68), (1.0,)),
        ((103.94, 116.78, 123.68), (1 / 0.017,)),
        ((-128.0,), (1.0,)),
    ],
)
def test_values_for_pixels_of_0_to_255_are_taken(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    assert Normalization(mean, std).mean == mean
