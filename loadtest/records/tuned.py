"""What a run of `tune` found: the search, the winner measured again, and what to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.records.ladder import Ladder, Rung
from loadtest.records.run import Run, WorkloadRun
from measurement.statistics import Ratio, paired_ratio

DEFAULT = "default"
"""The name of the control: what the service runs by itself."""
FINAL = "final"
"""The end of the name of the workload in which the winner was measured again."""


def trial_name(number: int) -> str:
    """What tables call a setting that was tried."""
    return f"trial-{number}"


@dataclass(frozen=True)
class Pair:
    """A setting beside the default, measured in turns.

    Attributes:
        setting: the setting's ladder.
        default: the default's.
    """

    setting: Ladder
    default: Ladder

    @property
    def score(self) -> float:
        """How much better the setting is, as a logarithm; what the search looks for."""
        return self.setting.score - self.default.score


def ladder_of(workload: WorkloadRun, variant: str, repeat: int, run: Run) -> Ladder | None:
    """The ladder of a variant in a repeat; None where it has no window."""
    rungs = [
        Rung.of(window, int(run.settings["request_batch"]))
        for window in workload.windows
        if (window.variant, window.repeat) == (variant, repeat)
    ]
    rungs.sort(key=lambda rung: rung.clients)
    return Ladder(rungs, float(run.settings["slo_ms"])) if rungs else None


def searched(run: Run) -> dict[int, Pair]:
    """Number of a trial to what was measured; those that failed are left out."""
    found = {}
    for trial in run.results["trials"]:
        if trial["error"]:
            continue
        number = int(trial["trial"])
        ladders = [
            ladder_of(run.workloads[0], name, number, run) for name in (trial_name(number), DEFAULT)
        ]
        if ladders[0] is not None and ladders[1] is not None:
            found[number] = Pair(ladders[0], ladders[1])
    return found


def winner(run: Run) -> int | None:
    """The trial that did best in the search, if it was better than the default there."""
    pairs = searched(run)
    best = max(pairs, key=lambda number: pairs[number].score, default=None)
    return best if best is not None and pairs[best].score > 0 else None


def finals(run: Run) -> list[Pair]:
    """The pairs of the end, in which the winner was measured again."""
    if len(run.workloads) < 2:
        return []
    workload = run.workloads[1]
    names = {window.variant for window in workload.windows} - {DEFAULT}
    repeats = sorted({window.repeat for window in workload.windows})
    found = []
    for name in names:
        for repeat in repeats:
            own = ladder_of(workload, name, repeat, run)
            default = ladder_of(workload, DEFAULT, repeat, run)
            if own is not None and default is not None:
                found.append(Pair(own, default))
    return found


@dataclass(frozen=True)
class Verdict:
    """What the end says of the winner.

    Attributes:
        ratio: its throughput within the limit as a multiple of the default's; None where one of
            them did not hold the limit, or nothing was measured again.
        holds: how many of the pairs the winner held the limit in.
        default_holds: the same of the default.
        pairs: how many there are.
    """

    ratio: Ratio | None
    holds: int
    default_holds: int
    pairs: int

    @property
    def is_gain(self) -> bool:
        """Whether the winner is to be taken: it is better, and that is no chance."""
        if self.ratio is not None:
            return self.ratio.is_distinct and self.ratio.spread.median > 1
        # A limit that only the winner holds, each time, needs no factor.
        return self.pairs > 2 and self.holds == self.pairs and self.default_holds == 0


def verdict(run: Run) -> Verdict:
    """Judge the winner by the end alone: in the search it won by luck, too."""
    pairs = finals(run)
    rates = [(pair.setting.images_per_s, pair.default.images_per_s) for pair in pairs]
    both = [(own, default) for own, default in rates if own and default]
    ratio = None
    if pairs and len(both) == len(pairs):
        ratio = paired_ratio([own for own, _ in both], [default for _, default in both])
    return Verdict(
        ratio,
        sum(own is not None for own, _ in rates),
        sum(default is not None for _, default in rates),
        len(pairs),
    )


def setting_of(run: Run, number: int | None) -> Mapping[str, Any]:
    """The values of a trial; of the default for None."""
    if number is None:
        default: Mapping[str, Any] = run.results["default"]
        return default
    trials = (trial for trial in run.results["trials"] if trial["trial"] == number)
    found = next(trials)
    return {name: found[name] for name in run.results["default"]}
