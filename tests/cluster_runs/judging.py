"""What the clients of a phase have seen, judged against what its fault may cost."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.records.run import Check
from tests.cluster_runs.load import UNREACHABLE, Attempt
from tests.robustness.checking_clients import HUNG, LOST, REFUSED, RIGHT, WRONG

WITHIN_S = 30.0
_WINDOW_S = 3.0
_STEP_S = 0.25
_LEAST_SHARE = 0.9


@dataclass(frozen=True)
class Verdict:
    """What a fault did to the throughput.

    Attributes:
        before_per_s: right calls a second before it.
        after_per_s: the same once it was over, to the end of the phase.
        back_s: how long after the fault every window had `aim_per_s` again; None where that did
            not happen.
        aim_per_s: what is asked for.
    """

    before_per_s: float
    after_per_s: float
    back_s: float | None
    aim_per_s: float


def throughput(
    attempts: Sequence[Attempt], began_s: float, fault_s: float, end_s: float, gain: float = 1.0
) -> Verdict:
    """How fast the throughput was back.

    Args:
        attempts: of the phase.
        began_s: when the clients were all at work.
        fault_s: when it happened.
        end_s: when the clients stopped.
        gain: throughput that there is to be then, as a multiple of that before.
    """
    right = sorted(attempt.ended_s for attempt in attempts if attempt.outcome == RIGHT)

    def per_s(from_s: float, to_s: float) -> float:
        if to_s <= from_s:
            return 0.0
        return (bisect_left(right, to_s) - bisect_left(right, from_s)) / (to_s - from_s)

    before_per_s = per_s(began_s, fault_s)
    aim_per_s = _LEAST_SHARE * gain * before_per_s
    steps = max(0, int((end_s - _WINDOW_S - fault_s) / _STEP_S))
    starts = [fault_s + step * _STEP_S for step in range(steps + 1)]
    low = [start for start in starts if per_s(start, start + _WINDOW_S) < aim_per_s]
    # A window that ends with the phase and is low leaves nothing that is known to be good.
    is_back = not low or low[-1] < starts[-1]
    back_s = (low[-1] + _STEP_S - fault_s if low else 0.0) if is_back else None
    after_per_s = per_s(end_s - _WINDOW_S if back_s is None else fault_s + back_s, end_s)
    return Verdict(before_per_s, after_per_s, back_s, aim_per_s)


def in_flight(attempts: Sequence[Attempt], at_s: float, port: int | None = None) -> int:
    """How many calls were under way then, at that front end or at all."""
    return sum(
        attempt.began_s <= at_s < attempt.ended_s and port in (None, attempt.port)
        for attempt in attempts
    )


def failed(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Attempts that were sent and have no right answer."""
    return [one for one in attempts if one.outcome not in (RIGHT, UNREACHABLE)]


def answer_checks(
    attempts: Sequence[Attempt], mistakes: Sequence[str], *, may_lose: int, of_what: str
) -> list[Check]:
    """That every call has its own answer, and how many had to be sent again.

    Args:
        attempts: of the phase.
        mistakes: of the clients.
        may_lose: how many attempts the fault may take with it.
        of_what: which these are, in words.
    """
    last = {attempt.call: attempt.outcome for attempt in attempts}
    unanswered = [call for call, outcome in last.items() if outcome != RIGHT]
    wrong = sum(attempt.outcome == WRONG for attempt in attempts)
    without = [attempt for attempt in failed(attempts) if attempt.outcome in (LOST, HUNG)]
    hung = sum(attempt.outcome == HUNG for attempt in without)
    # What a server refuses before any work is not lost.
    lost = sum(attempt.outcome != REFUSED for attempt in failed(attempts))
    first = f": {mistakes[0]}" if mistakes else ""
    return [
        Check("no answer is wrong, or another call's", "0", f"{wrong}{first}", not wrong),
        Check(
            "every accepted call is answered once, rightly or with a declared error",
            f"at most {may_lose} connections lost, {of_what}",
            f"{len(without) - hung} lost, {hung} without answer",
            len(without) <= may_lose and not hung,
        ),
        Check(
            "calls that had to be sent again",
            f"at most {may_lose}, {of_what}",
            str(lost),
            lost <= may_lose,
        ),
        Check(
            "every call is answered rightly in the end",
            "all",
            f"{len(last) - len(unanswered)} of {len(last)}",
            not unanswered and bool(last),
        ),
    ]


def throughput_check(verdict: Verdict, gain: float = 1.0) -> Check:
    """That the throughput came back."""
    back = "not at all" if verdict.back_s is None else f"after {verdict.back_s:.1f} s"
    name = "throughput comes back" if gain == 1.0 else "throughput grows"
    return Check(
        name,
        f"at least {verdict.aim_per_s:.1f} calls/s within {WITHIN_S:g} s",
        f"{back}: {verdict.before_per_s:.1f} calls/s before, {verdict.after_per_s:.1f} then",
        verdict.back_s is not None and verdict.back_s <= WITHIN_S,
    )
