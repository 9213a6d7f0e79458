"""What a model did with made-up inputs, and the file in which that is kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.cache.checksummed_file import UnusableFileError, keep, read_kept

_SUM_TOLERANCE = 1e-3
# Of probabilities, and of percentages.
_USUAL_TOTALS = (1, 100)
_LEAST_INPUTS = 3
# Raise it when a trial gives another verdict on the same model.
_VERSION = 2
_MAX_KEPT_BYTES = 1024 * 1024

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ValueRange:
    """The finite values of an output of floats, for lone inputs that differ.

    Attributes:
        lowest: the lowest one.
        highest: the highest one.
        inputs: how many inputs they are of.
        total: the sum of the values of one input, if it is the same for several inputs and no value
            is negative, as with probabilities that exclude each other; else 0.
        differ: whether those of one input are not those of all.
    """

    lowest: float
    highest: float
    inputs: int
    total: float
    differ: bool

    @property
    def is_softmax(self) -> bool:
        """Whether they are, beyond doubt, probabilities that exclude each other."""
        return self.differ and _is_total(self.total, 1)

    @property
    def may_be_shares(self) -> bool:
        """Whether they may be such probabilities, scaled or rounded.

        Where all inputs have given the same, any sum would be the same; 1 or 100 is no chance.
        """
        is_usual = any(_is_total(self.total, usual) for usual in _USUAL_TOTALS)
        return self.total > 0 and (self.differ or is_usual)

    @property
    def is_within_1(self) -> bool:
        """Whether all are of 0 to 1, but for rounding."""
        return self.lowest >= -_SUM_TOLERANCE and self.highest <= 1 + _SUM_TOLERANCE

    @property
    def may_be_scores(self) -> bool:
        """Whether all values of several inputs are of 0 to 1, as after a sigmoid."""
        return self.is_within_1 and self.inputs >= _LEAST_INPUTS


def _is_total(total: float, usual: float) -> bool:
    return abs(total - usual) <= usual * _SUM_TOLERANCE


@dataclass(frozen=True)
class Trial:
    """What a model did with made-up inputs; nothing where onnxruntime cannot run it.

    Attributes:
        flaws: for each output that cannot be served in batches why, and what to do.
        ranges: for outputs of floats without a flaw what their values were.
        only_alone: why batches hold one row, where the file fixes that and it cannot be changed.
        is_over: whether it came to its end, so that another one would find the same.
    """

    flaws: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, ValueRange] = field(default_factory=dict)
    only_alone: str = ""
    is_over: bool = False


def value_range(
    singles: Sequence[npt.NDArray[Any]], tolerance: float = _SUM_TOLERANCE
) -> ValueRange | None:
    """Of an output's values for lone inputs; None where they are not finite.

    Args:
        singles: the output for each of the inputs.
        tolerance: how far sums may be apart and still be the same, relative to them.
    """
    rows = np.array([single.reshape(-1) for single in singles], np.float64)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not rows.size:
        return None
    lowest, highest = float(rows.min()), float(rows.max())
    sums = rows.sum(axis=1)
    total = float(sums.mean())
    has_total = (
        rows.shape[1] > 1
        and len(rows) >= _LEAST_INPUTS
        and lowest >= -_SUM_TOLERANCE * total
        and np.allclose(sums, total, rtol=0, atol=tolerance * total)
    )
    differ = not np.all(rows == rows[0])
    return ValueRange(lowest, highest, len(rows), total if has_total else 0.0, differ)


def read_trial(path: Path) -> Trial | None:
    """The trial of another process, or None."""
    try:
        kept = json.loads(read_kept(path, _MAX_KEPT_BYTES))
        if kept["version"] != _VERSION:
            return None
        ranges = {name: ValueRange(**values) for name, values in kept["ranges"].items()}
        return Trial(kept["flaws"], ranges, kept["only_alone"], is_over=True)
    except FileNotFoundError:
        return None
    except (UnusableFileError, ValueError, TypeError, KeyError) as reason:
        _logger.warning("trying the model out again: %s cannot be used: %s", path, reason)
        return None


def keep_trial(path: Path, trial: Trial) -> None:
    """Write a trial that is over to a file, for other processes."""
    kept = {key: value for key, value in asdict(trial).items() if key != "is_over"}
    keep(path, json.dumps({"version": _VERSION, **kept}).encode())
