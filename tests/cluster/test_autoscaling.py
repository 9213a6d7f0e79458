"""As many replicas as keep the expected wait short: their metrics, and the policy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.autoscaling import LOAD, BusyShare, LoadPolicy, metrics
from service.admission import Admission


@pytest.mark.parametrize(
    ("wait_s", "batch_s", "busy_share", "max_queue_ms", "expected"),
    [
        (0.15, 0.01, 0.6, 450, 1.0),
        (0.3, 0.01, 1.0, 450, 2.0),
        (0.0, 0.01, 0.0, 450, 0.0),
        # Without a limit.
        (0.15, 0.01, 0.6, 0, 1.0),
        # A batch of a slow model alone takes longer than what is to be kept.
        (2.0, 1.0, 0.6, 450, 1.0),
        # A fast model: the wait is short until there is more work than can be done.
        (0.01, 0.01, 0.7, 450, 1.0),
        (0.01, 0.01, 0.35, 450, 0.5),
    ],
)
def test_load_is_1_where_wait_or_work_is_what_is_to_be_kept(
    wait_s: float, batch_s: float, busy_share: float, max_queue_ms: int, expected: float
) -> None:
    told = metrics(wait_s, batch_s, busy_share, max_queue_ms)
    assert told[LOAD] == pytest.approx(expected)


def test_the_busy_share_is_that_since_the_last_look() -> None:
    now_s = 10.0
    admission = Admission(2, 100, first_guess_s=0.05, clock=lambda: now_s)
    share = BusyShare(now_s)
    with admission.admit(1):
        now_s = 14.0
    # One of two that could be worked on, for all of the time.
    assert share.look(admission.busy_s, now_s) == pytest.approx(0.5)
    with admission.admit(8):
        now_s = 15.0
    now_s = 18.0
    assert share.look(admission.busy_s, now_s) == pytest.approx(0.25)
    assert share.look(admission.busy_s, now_s) == 0.0


class Serve:
    """Asks the policy as Ray Serve does, with metrics that all replicas share."""

    def __init__(self) -> None:
        self._policy = LoadPolicy()
        self._state: dict[str, Any] = {}

    def wanted(self, *told: dict[str, float], target: int | None = None) -> float:
        names = {name for one in told for name in one}
        context = SimpleNamespace(
            aggregated_metrics={
                name: {str(number): one[name] for number, one in enumerate(told)} for name in names
            },
            target_num_replicas=target or len(told),
            policy_state=self._state,
        )
        wanted, self._state = self._policy(context)
        return wanted


def test_the_policy_wants_so_many_that_the_mean_load_becomes_1() -> None:
    waiting, idle = metrics(0.45, 0.01, 1.0, 450), metrics(0.0, 0.01, 0.7, 450)
    assert Serve().wanted(waiting, idle) == pytest.approx(4)
    half = metrics(0.0, 0.01, 0.35, 450)
    assert Serve().wanted(half, half) == pytest.approx(1)
    # A second one has come that has told nothing yet.
    assert Serve().wanted(waiting, target=2) == pytest.approx(3)
    # While none has told, everything stays.
    assert Serve().wanted(target=3) == 3


def test_a_steady_load_keeps_its_replicas_where_batches_spare_time() -> None:
    """Eight replicas that work 0.7 of the time, 10 ms an image: their wait is next to nothing."""
    assert Serve().wanted(*[metrics(0.007, 0.01, 0.7, 450)] * 8) == pytest.approx(8)


def test_a_steady_load_keeps_its_replicas_where_batches_spare_nothing() -> None:
    """Ten images a second are what a replica can do, one at a time, of which six count as work."""
    serve = Serve()
    full = metrics(0.6, 0.6, 1.0, 450)
    assert 1 < serve.wanted(full) <= 2
    # Seven images a second each, and one of six at a time: by their shares one would be enough.
    calm = metrics(0.0, 1.2 / 7, 0.2, 450)
    assert 2 * calm[LOAD] < 1
    assert serve.wanted(calm, calm) == pytest.approx(2)
    assert serve.wanted(calm, calm) == pytest.approx(2)
    # The same work is no reason for more than there are.
    assert serve.wanted(*[calm] * 2, target=1) == pytest.approx(1)
    # Half of the load.
    calmer = metrics(0.0, 0.6 / 3.5, 0.1, 450)
    assert serve.wanted(calmer, calmer) == pytest.approx(1)
    idle = metrics(0.0, 0.1, 0.0, 450)
    assert serve.wanted(idle, idle) == 0
    # And back.
    assert serve.wanted(calm, calm) == pytest.approx(2)


def test_a_replica_that_has_just_come_is_no_measure_of_what_one_can_do() -> None:
    serve = Serve()
    full, calm = metrics(0.6, 0.6, 1.0, 450), metrics(0.0, 1.2 / 7, 0.2, 450)
    serve.wanted(full, calm)
    assert serve.wanted(calm, calm) == pytest.approx(2)


def test_the_expected_wait_is_that_of_all_that_are_there() -> None:
    now_s = 0.0
    admission = Admission(2, 100, first_guess_s=0.05, clock=lambda: now_s)
    assert admission.expected_wait_s == 0.0
    assert admission.full_batch_s == pytest.approx(0.1)
    with admission.admit(8):
        assert admission.expected_wait_s == pytest.approx(0.4)
