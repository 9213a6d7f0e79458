"""The parts of the cluster's runs that need no Ray: clients, check values and what they judge."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from loadtest.errors import LoadTestError
from loadtest.records.run import new_run
from tests.cluster_runs import chaos, judging, pages, results
from tests.cluster_runs.check_values import random_image
from tests.cluster_runs.command_line import main
from tests.cluster_runs.load import UNREACHABLE, Attempt, ClusterLoad
from tests.cluster_runs.paced import paced_server
from tests.commands import run_here
from tests.robustness.checking_clients import FAILED, HUNG, LATE, LOST, REFUSED, RIGHT, WRONG
from tests.robustness.colour_model import write_colour_model
from tests.serving import ServerProcess, service
from tests.waiting import wait_until

OPTIONS = ("--port", "0", "--workers", "1")


def attempt(ended_s: float, outcome: str = RIGHT, call: str = "", port: int = 1) -> Attempt:
    return Attempt(call or f"call at {ended_s}", port, ended_s - 0.1, ended_s, outcome)


def steady(*spans: tuple[float, float, int]) -> list[Attempt]:
    """So many right calls a second, from and to."""
    return [
        attempt(second + index / per_s)
        for begin, end, per_s in spans
        for second in range(int(begin), int(end))
        for index in range(per_s)
    ]


def test_each_image_has_an_answer_of_its_own() -> None:
    rng = random.Random(1)  # noqa: S311 (guards no secret)
    images = [random_image(rng) for _ in range(200)]
    scores = {tuple(f"{score:.4f}" for score in image.scores.values()) for image in images}
    assert len(scores) > 190
    right = {
        1: max(images[0].scores, key=lambda label: images[0].scores[label]).encode(),
        3: b"mine",
        5: [{2: label.encode(), 3: score} for label, score in images[0].scores.items()],
    }
    assert images[0].mistake(right, b"mine") == ""
    assert "the uuid is b'mine'" in images[0].mistake(right, b"another")
    assert "the scores are" in images[1].mistake(right, b"mine")
    assert "the label is" in images[0].mistake({**right, 1: b"none of them"}, b"mine")
    assert "the classes are" in images[0].mistake({**right, 5: []}, b"mine")


def test_clients_go_to_another_server_and_lose_what_the_dead_one_had(tmp_path: Path) -> None:
    """Two servers, one of which is killed under load."""
    arguments = paced_server(tmp_path, 5)
    other = ServerProcess(["-m", "service", *OPTIONS, *arguments])
    try:
        dead_port = other.port()
        with service(*arguments) as (port, _):
            load = ClusterLoad([dead_port, port], 4, seed=3, images=2)
            with load:
                wait_until(lambda: load.counts[RIGHT] >= 20)
                other.process.send_signal(signal.SIGKILL)
                killed = len(load.attempts)
                wait_until(lambda: len(load.attempts) > killed + 40)
    finally:
        other.close()
    assert not load.mistakes
    lost = [one for one in load.attempts if one.outcome == LOST]
    assert 0 < len(lost) <= 2
    assert {one.port for one in lost} == {dead_port}
    last = {one.call: one.outcome for one in load.attempts}
    assert set(last.values()) == {RIGHT}
    assert set(load.counts) <= {RIGHT, LOST, UNREACHABLE}


def test_another_model_is_a_wrong_answer(tmp_path: Path) -> None:
    """The same labels, and other scores: the check value shows it."""
    colours = write_colour_model(tmp_path).arguments()
    colours[colours.index("255")] = "128"
    with service("--handler", "pipeline", *colours) as (port, _):
        load = ClusterLoad([port], 1, seed=3)
        with load:
            wait_until(lambda: load.counts[WRONG] >= 1)
    assert "the scores are" in load.mistakes[0]


def test_throughput_is_back_once_every_later_window_has_it() -> None:
    dip = steady((0, 10, 100), (14, 30, 100))
    verdict = judging.throughput(dip, 0, 10, 30)
    assert verdict.before_per_s == 100
    assert verdict.back_s is not None
    # A window of three seconds that begins at 13.75 s lacks a quarter of one.
    assert 3 <= verdict.back_s <= 4
    assert judging.throughput(steady((0, 10, 100), (10, 30, 50)), 0, 10, 30).back_s is None
    assert judging.throughput(steady((0, 30, 100)), 0, 10, 30).back_s == 0.0
    late = judging.throughput(steady((0, 10, 100), (14, 25, 100), (25, 30, 20)), 0, 10, 30)
    assert late.back_s is None
    assert not judging.throughput_check(late).met


def test_throughput_that_is_to_grow() -> None:
    grown = steady((0, 10, 50), (10, 16, 50), (16, 40, 100))
    verdict = judging.throughput(grown, 0, 10, 40, gain=2.0)
    assert verdict.back_s is not None
    assert 5 <= verdict.back_s <= 6.5
    assert not judging.throughput_check(judging.throughput(grown, 0, 10, 15, gain=2.0), 2.0).met


def met(
    attempts: Sequence[Attempt], connections: int, fails: int = 0, mistakes: Sequence[str] = ()
) -> list[bool]:
    checks = judging.answer_checks(
        attempts, mistakes, connections=connections, fails=fails, of_what="of the dead"
    )
    return [bool(check.met) for check in checks]


def test_answers_are_judged() -> None:
    good = steady((0, 2, 5))
    assert met(good, 0) == [True] * 5
    assert met([*good, attempt(3, WRONG)], 9, 9, ["wrong"]) == [False, True, True, False, True]
    retried = [attempt(1, LOST, "a"), attempt(2, RIGHT, "a")]
    assert met([*good, *retried], 1) == [True] * 5
    assert met([*good, *retried], 0, 9) == [True, False, True, True, True]
    assert met([*good, attempt(1, LOST, "a")], 1) == [True, True, True, False, True]
    assert met([*good, attempt(1, HUNG, "a"), attempt(2, RIGHT, "a")], 1, 1)[1] is False
    # What is refused before any work has failed in nothing; what is late or fails has.
    assert met([*good, attempt(1, REFUSED, "a"), attempt(2, RIGHT, "a")], 0) == [True] * 5
    for outcome in (FAILED, LATE):
        failed = [*good, attempt(1, outcome, "a"), attempt(2, RIGHT, "a")]
        assert met(failed, 9) == [True, True, False, True, True]
        assert met(failed, 0, 1) == [True] * 5
    # A port that is not there takes no call.
    away = [*good, attempt(1, UNREACHABLE, "a"), attempt(2, RIGHT, "a")]
    assert met(away, 9, 9) == [True, True, True, True, False]
    # No call at all is no answer.
    assert met([], 0)[3] is False


def test_what_comes_after_the_end_of_a_fault_is_judged_from_there() -> None:
    """The throughput stays while the head is away, and falls once it is back."""
    dip = steady((0, 20, 100), (24, 40, 100))
    verdict = judging.throughput(dip, 0, 10, 40, over_s=20)
    assert verdict.before_per_s == 100
    assert verdict.back_s is not None
    assert 3 <= verdict.back_s <= 4
    assert judging.throughput(dip, 0, 10, 22, over_s=20).back_s is None
    assert judging.meanwhile_check(dip, 0, 10, 20).met
    assert not judging.meanwhile_check(steady((0, 10, 100), (12, 40, 100)), 0, 10, 20).met


def cells(folder: Path, first: str) -> list[str]:
    """The row of the report's tables that begins like that."""
    rows = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in (folder / "report.md").read_text().splitlines()
        if line.startswith("|")
    )
    return next(row[1:] for row in rows if row[0] == first)


def test_a_report_shows_phases_and_a_failed_check(tmp_path: Path) -> None:
    phase = {
        "name": "killed-replica",
        "what": "SIGKILL to a replica (pid 1)",
        "length_s": 20.0,
        "fault_s": 10.0,
        "over_s": 12.0,
        "outcomes": {RIGHT: 2, LOST: 1},
        "before_per_s": 100.0,
        "after_per_s": 99.0,
        "back_s": 3.5,
    }
    settings = {"nodes": 3, "replicas": 4, "item_ms": 40.0, "clients": 16, "gcs": "rocksdb"}
    run = new_run(pages.CHAOS, "python -m tests.cluster_runs chaos", settings)
    rows = [("killed-replica", "c", "1.0", str(float(second)), RIGHT) for second in range(1, 20)]
    checks = judging.answer_checks(
        [attempt(1, LOST, "a")], [], connections=0, fails=0, of_what="it"
    )
    with pytest.raises(LoadTestError, match="2 broken promise"):
        results.finish(
            run,
            tmp_path,
            checks,
            {"phases": [phase]},
            {"attempts": (chaos.ATTEMPT_COLUMNS, rows)},
        )
    assert cells(tmp_path, "killed-replica") == ["2", "1", "100.0", "99.0", "3.5"]
    assert (tmp_path / "phases.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_report_of_scaling(tmp_path: Path) -> None:
    settings = {
        "counts": [1, 2],
        "rounds": 1,
        "duration_s": 5.0,
        "item_ms": 100.0,
        "clients_per_replica": 4,
    }
    run = new_run(pages.SCALING, "python -m tests.cluster_runs scaling", settings)
    found = [
        {"replicas": 1, "images_per_s": 9.5, "of_linear": 1.0, "windows": 1},
        {"replicas": 2, "images_per_s": 18.8, "of_linear": 0.989, "windows": 1},
    ]
    rows = [(1, 1, 9.5, 0), (1, 2, 18.8, 0)]
    results.finish(
        run,
        tmp_path,
        [],
        {"scaling": found},
        {"windows": (("round", "replicas", "images_per_s", "failed"), rows)},
    )
    assert cells(tmp_path, "2") == ["18.80", "0.989", "1"]


def test_unknown_phases_are_refused() -> None:
    done = run_here(main, "chaos", "--phases", "kiled-node")
    assert done.returncode == 2
    assert "killed-node" in done.stderr
