"""What the clients of a phase have seen, judged against what its fault may cost."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
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
        back_s: how long after that every window had `aim_per_s` again; None where that did
            not happen.
        aim_per_s: what is asked for.
    """

    before_per_s: float
    after_per_s: float
    back_s: float | None
    aim_per_s: float


def throughput(
    attempts: Sequence[Attempt],
    began_s: float,
    fault_s: float,
    end_s: float,
    gain: float = 1.0,
    over_s: float | None = None,
) -> Verdict:
    """How fast the throughput was back.

    Args:
        attempts: of the phase.
        began_s: when the clients were all at work.
        fault_s: when it happened.
        end_s: when the clients stopped.
        gain: throughput that there is to be then, as a multiple of that before.
        over_s: from when on it is to come back; None for from the fault on.
    """
    over_s = fault_s if over_s is None else over_s
    per_s = _rate(attempts)
    before_per_s = per_s(began_s, fault_s)
    aim_per_s = _LEAST_SHARE * gain * before_per_s
    steps = max(0, int((end_s - _WINDOW_S - over_s) / _STEP_S))
    starts = [over_s + step * _STEP_S for step in range(steps + 1)]
    low = [start for start in starts if per_s(start, start + _WINDOW_S) < aim_per_s]
    # A window that ends with the phase and is low leaves nothing that is known to be good.
    is_back = not low or low[-1] < starts[-1]
    back_s = (low[-1] + _STEP_S - over_s if low else 0.0) if is_back else None
    after_per_s = per_s(end_s - _WINDOW_S if back_s is None else over_s + back_s, end_s)
    return Verdict(before_per_s, after_per_s, back_s, aim_per_s)


def _rate(attempts: Sequence[Attempt]) -> Callable[[float, float], float]:
    """Right calls a second, from and to."""
    right = sorted(attempt.ended_s for attempt in attempts if attempt.outcome == RIGHT)

    def per_s(from_s: float, to_s: float) -> float:
        if to_s <= from_s:
            return 0.0
        return (bisect_left(right, to_s) - bisect_left(right, from_s)) / (to_s - from_s)

    return per_s


def answer_checks(
    attempts: Sequence[Attempt],
    mistakes: Sequence[str],
    *,
    connections: int,
    fails: int,
    of_what: str,
) -> list[Check]:
    """That every call has its own answer, and how many had to be sent again.

    Args:
        attempts: of the phase.
        mistakes: of the clients.
        connections: how many the fault may take with it.
        fails: how many calls may get a declared error for it.
        of_what: which these are, in words.
    """
    last = {attempt.call: attempt.outcome for attempt in attempts}
    unanswered = [call for call, outcome in last.items() if outcome != RIGHT]
    counts = Counter(attempt.outcome for attempt in attempts)
    wrong, lost, hung = counts[WRONG], counts[LOST], counts[HUNG]
    # What a server refuses before any work has failed in nothing.
    others = (RIGHT, WRONG, LOST, HUNG, REFUSED, UNREACHABLE)
    failed = sum(count for outcome, count in counts.items() if outcome not in others)
    first = f": {mistakes[0]}" if mistakes else ""
    return [
        Check("no answer is wrong, or another call's", "0", f"{wrong}{first}", not wrong),
        Check(
            "every accepted call is answered once, rightly or with a declared error",
            f"at most {connections} connections lost, {of_what}" if connections else "0 lost",
            f"{lost} lost, {hung} without answer",
            lost <= connections and not hung,
        ),
        Check(
            "calls with a declared error",
            f"at most {fails}, {of_what}" if fails else "0",
            str(failed),
            failed <= fails,
        ),
        Check(
            "every call is answered rightly in the end",
            "all",
            f"{len(last) - len(unanswered)} of {len(last)}",
            not unanswered and bool(last),
        ),
        Check(
            "the port takes every connection",
            "0 refused",
            f"{counts[UNREACHABLE]} refused",
            not counts[UNREACHABLE],
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


def meanwhile_check(
    attempts: Sequence[Attempt], began_s: float, fault_s: float, over_s: float
) -> Check:
    """That the throughput stayed between a fault and its end."""
    per_s = _rate(attempts)
    before_per_s, meanwhile_per_s = per_s(began_s, fault_s), per_s(fault_s, over_s)
    aim_per_s = _LEAST_SHARE * before_per_s
    return Check(
        f"throughput stays for the {over_s - fault_s:.0f} s until then",
        f"at least {aim_per_s:.1f} calls/s",
        f"{before_per_s:.1f} calls/s before, {meanwhile_per_s:.1f} meanwhile",
        meanwhile_per_s >= aim_per_s,
    )
