"""Mean and std of the pixels that a model takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.errors import EngineError

_LEVELS = 255
# Of 0..255; that of photographs is about 60.
_LEAST_USUAL_STD = 5


@dataclass(frozen=True)
class Normalization:
    """What a model expects of its pixels: (value - mean) / std, in units of 0..255.

    Attributes:
        mean: one value, or one for each of R, G and B.
        std: one value, or one for each of R, G and B; positive.

    Raises:
        EngineError: another number of values, one that is not finite, a std that is not positive,
            or values that must be meant for pixels of 0..1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for field, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, 3):
                raise EngineError(f"{field} takes 1 value or 3 (R, G, B), got {len(values)}")
            if not all(map(math.isfinite, values)):
                raise EngineError(f"{field} takes finite numbers, got {comma_separated(values)}")
        if min(self.std) <= 0:
            raise EngineError(f"std must be positive, got {comma_separated(self.std)}")
        if unit := self._fields_for_unit_pixels():
            scaled = " and ".join(
                f"{field} {','.join(f'{_LEVELS * value:g}' for value in values)}"
                for field, values in unit.items()
            )
            given = " and ".join(
                f"{field} {comma_separated(values)}" for field, values in unit.items()
            )
            verb, which = ("are", "both") if len(unit) > 1 else ("is", *unit)
            raise EngineError(
                f"{given} {verb} for pixels of 0..1; here they are of 0..255, so give {which} "
                f"times 255: {scaled}"
            )

    def _fields_for_unit_pixels(self) -> dict[str, tuple[float, ...]]:
        """What no network could want of pixels of 0..255; a mean of 0 is the same in any unit.

        Nor does a mean of 1 tell, which is white or next to black. With a std from 1 on either
        leaves the pixels nearly as they are, or makes them smaller.
        """
        small_mean = max(map(abs, self.mean)) <= 1
        unit_mean = small_mean and any(value not in (0, 1) for value in self.mean)
        unit_std = min(self.std) < 1 or (unit_mean and max(self.std) < _LEAST_USUAL_STD)
        fields = {}
        if unit_mean or (unit_std and small_mean):
            fields["mean"] = self.mean
        if unit_std:
            fields["std"] = self.std
        return fields

    def differs_from(self, other: Normalization) -> bool:
        """Whether the two are not the same but for rounding: one of 256 levels, or 2 % of a std."""
        (mean, std), (other_mean, other_std) = self.per_channel(), other.per_channel()
        same_mean = np.allclose(mean, other_mean, rtol=0, atol=1)
        return not (same_mean and np.allclose(std, other_std, rtol=0.02, atol=0))

    @property
    def is_identity(self) -> bool:
        """Whether it leaves pixels as they are."""
        return set(self.mean) == {0} and set(self.std) == {1}

    @property
    def is_one_for_all(self) -> bool:
        """Whether it is the same for R, G and B."""
        return len(set(self.mean)) == len(set(self.std)) == 1

    def per_channel(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std with three values each."""
        return self.mean * (3 // len(self.mean)), self.std * (3 // len(self.std))


IMAGENET_NORMALIZATION = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
PLAIN_PIXELS = Normalization((0.0,), (1.0,))
"""Of a model that takes 0..255 as they are."""


def comma_separated(values: tuple[float, ...]) -> str:
    """The values of mean or std as command lines and TOML files have them, without rounding."""
    return ",".join(str(value) for value in values)
