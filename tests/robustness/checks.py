"""What every run asks of a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadtest.records.run import Check
from tests.robustness.checking_clients import FAILED, HUNG, LATE, LOST, REFUSED, RIGHT, WRONG
from tests.robustness.server_under_test import ServerUnderTest, Watch


def answered(counts: Counter[str], may_fail: Sequence[str]) -> Check:
    """No accepted request is left, but for the outcomes that a phase may have."""
    broken = [
        f"{counts[name]} {name}"
        for name in (REFUSED, LATE, FAILED, LOST, HUNG, WRONG)
        if counts[name] and name not in may_fail
    ]
    return Check(
        "every accepted request is answered once, rightly or with a declared error",
        "allowed besides: " + (", ".join(may_fail) or "none"),
        ", ".join(broken) or f"{counts.total()} images, none else",
        not broken and counts[RIGHT] > 0,
    )


def pings_answered(watch: Watch, timeout_s: float, may_fail: Sequence[str] = ()) -> Check:
    """The server answered all the time."""
    lost = len(watch.failures)
    return Check(
        "pings are answered",
        f"{timeout_s:g} s",
        f"{len(watch.pings)} pings, the slowest answer {watch.slowest_s:.3f} s, {lost} failures",
        watch.slowest_s <= timeout_s and (not lost or LOST in may_fail),
    )


def clean_exit(exit_code: int, *, was_alive: bool, name: str = "") -> Check:
    """The server ran until SIGTERM and then left as it should."""
    return Check(
        f"{name}alive to the end, then a clean exit",
        "exit code 0 after SIGTERM",
        f"exit code {exit_code}" + ("" if was_alive else " before SIGTERM"),
        was_alive and exit_code == 0,
    )


def no_traceback(server: ServerUnderTest, name: str = "") -> Check:
    """Nothing in the server raised what it did not expect."""
    found = server.tracebacks
    measured = str(len(found)) + (f": {found[-1][-1]}" if found else "")
    return Check(f"{name}no traceback in the log", "0", measured, not found)
