"""The verdict: each decision, from hand-made runs, and what its sentences say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from loadtest.records.run import Run, Window
from loadtest.report.summary import summarise
from loadtest.report.verdict import Decision, Verdict, verdict
from loadtest.report.waterfall import waterfall

Measure = Callable[..., Run]
_BOTH = ["baseline", "pipeline"]


@pytest.fixture
def measured(repeat_of: Callable[..., Window], run_of: Callable[..., Run]) -> Measure:
    """Makes a run of 10 busy clients: each variant serves that many requests a second.

    Every repeat serves one more than the one before; `scatter` is added to the pipelines' in turns.
    """

    def run(rates: Mapping[str, int], repeats: int = 5, scatter: int = 0) -> Run:
        windows = []
        for number in range(1, repeats + 1):
            for name, rate in rates.items():
                off = scatter if name.startswith("pipeline") and number % 2 else 0
                n = rate + number + off
                windows.append(repeat_of(name, number, [10_000 / n] * n, 1.0))
        return run_of(list(rates), windows)

    return run


def _of(run: Run, *, on_gpu: bool = False) -> Verdict:
    workload = run.workloads[0]
    rows = summarise(run, workload)
    return verdict(run, workload, rows, waterfall(rows, on_gpu=on_gpu), on_gpu=on_gpu)


def test_a_gain_that_the_control_does_not_have_is_a_reason_to_switch(measured: Measure) -> None:
    told = _of(measured({"baseline": 1000, "baseline-no-lock": 1300, "pipeline": 1600}))
    assert told.decision is Decision.SWITCH
    switch, cause, sure = told.sentences
    assert switch.startswith("Yes, switch: `pipeline` serves 1.60 times the images per second")
    assert "(1603.0 against 1003.0)" in switch
    assert "taking the lock away (1.30 times" in cause
    assert "batching and instances (1.23 times" in cause
    assert "56 % of it" in cause
    assert "the control beside it, `baseline-no-lock`, serves 1303.0" in cause
    assert sure.startswith(
        "Sure: 5 paired repeats, taken in turns, put the ratio to `baseline` between 1.60"
    )
    assert "same labels to 3 images" in sure


def test_a_difference_inside_the_noise_is_none(measured: Measure) -> None:
    told = _of(measured({"baseline": 1000, "baseline-no-lock": 1000, "pipeline": 980}, scatter=60))
    assert told.decision is Decision.NO_DIFFERENCE
    assert told.sentences[0].startswith("No difference is proven: ")
    assert "within chance" in told.sentences[0]
    assert "On the way there are" in told.sentences[1]
    assert told.sentences[2].startswith("All that is sure: 5 paired repeats, taken in turns, put ")
    assert "a smaller difference cannot be seen" in told.sentences[2]


def test_a_sure_difference_of_half_a_percent_is_none(measured: Measure) -> None:
    told = _of(measured({"baseline": 2000, "baseline-no-lock": 2000, "pipeline": 2010}))
    assert told.gain is not None
    assert told.gain.is_distinct
    assert told.decision is Decision.NO_DIFFERENCE
    assert "which is a difference below 1 %" in told.sentences[0]


def test_half_a_percent_more_than_the_control_is_no_reason_to_switch(measured: Measure) -> None:
    told = _of(measured({"baseline": 1000, "baseline-no-lock": 2000, "pipeline": 2010}))
    assert told.decision is Decision.CONTROL_SUFFICES
    assert told.sentences[0].startswith("No need is proven: `pipeline` serves 2.01 times")
    assert "less than 1 % is gained beside `baseline-no-lock`" in told.sentences[0]


def test_a_loss_is_a_no(measured: Measure) -> None:
    told = _of(measured({"baseline": 2000, "baseline-no-lock": 3000, "pipeline": 1000}))
    assert told.decision is Decision.SLOWER
    assert told.sentences[0].startswith("No: `pipeline` serves 0.50 times")
    assert "but the slowest 1 % take" in told.sentences[0]


def test_a_gain_that_is_only_processes_can_be_had_without_the_pipeline(measured: Measure) -> None:
    rates = {"baseline": 1000, "baseline-no-lock": 1001, "baseline-no-lock-4w": 3000}
    told = _of(measured({**rates, "pipeline-4w": 2985}, scatter=30))
    assert told.decision is Decision.CONTROL_SUFFICES
    assert told.sentences[0].startswith("No need is proven: `pipeline-4w` serves 3.00 times")
    which = "`baseline-no-lock-4w`, which is the baseline without its lock and with 4 processes"
    assert f"no gain is proven beside {which} (3016.0 against 3003.0)" in told.sentences[0]
    assert "4 server processes (2.99 times" in told.sentences[1]


def test_a_gain_that_is_only_the_lock_can_be_had_without_the_pipeline(measured: Measure) -> None:
    rates = {"baseline": 1000, "baseline-no-lock": 1500, "pipeline": 1400}
    told = _of(measured(rates, scatter=30))
    assert told.decision is Decision.CONTROL_SUFFICES
    which = "`baseline-no-lock`, which is the baseline without its lock"
    assert f"{which}, serves more (1431.0 against 1503.0)" in told.sentences[0]


def test_without_a_control_a_gain_has_no_known_cause(measured: Measure) -> None:
    told = _of(measured({"baseline": 1000, "pipeline": 1600}))
    assert told.decision is Decision.CAUSE_UNKNOWN
    assert told.sentences[0].startswith("Perhaps: ")
    assert "taking the lock away together with batching and instances (1.60" in told.sentences[1]
    assert "add `baseline-no-lock` to `--variants`" in told.sentences[1]


def test_a_control_with_fewer_processes_is_none_for_more_of_them(measured: Measure) -> None:
    rates = {"baseline": 1000, "baseline-no-lock": 1300}
    told = _of(measured({**rates, "pipeline-4w": 4000}))
    assert told.decision is Decision.CAUSE_UNKNOWN
    assert "add `baseline-no-lock-4w` to `--variants`" in told.sentences[1]
    # A pipeline with as few processes proves that it has something of its own.
    told = _of(measured({**rates, "pipeline": 1600, "pipeline-4w": 4000}))
    assert told.decision is Decision.SWITCH
    assert told.compared is not None
    assert (told.pipeline and told.pipeline.name, told.compared.name) == ("pipeline-4w", "pipeline")
    assert "and `pipeline` 1.23 times as many" in told.sentences[1]
    assert told.sentences[1].endswith("; no control was measured with 4 processes.")


def test_on_a_gpu_the_baseline_keeps_its_lock_and_is_the_control(measured: Measure) -> None:
    rates = {"baseline": 1000, "baseline-4w": 2000, "pipeline-4w": 2500, "pipeline-gpu-4w": 4000}
    told = _of(measured(rates), on_gpu=True)
    assert told.decision is Decision.SWITCH
    assert told.control is not None
    assert told.control.name == "baseline-4w"
    assert "decoder on the GPU (1.60 times" in told.sentences[1]
    alone = _of(measured({"baseline": 1000, "pipeline": 1600}), on_gpu=True)
    assert alone.decision is Decision.SWITCH


def test_one_repeat_proves_nothing(measured: Measure) -> None:
    rates = {"baseline": 1000, "baseline-no-lock": 1300, "pipeline": 1600}
    told = _of(measured(rates, repeats=1))
    assert told.decision is Decision.NOT_PROVEN
    assert told.sentences[0].startswith("Not proven: `pipeline` serves 1.60 times")
    assert "in one repeat" in told.sentences[1]
    assert "measure again with `--repeats 5`" in told.sentences[2]


def test_wrong_answers_outweigh_every_gain(measured: Measure) -> None:
    run = measured({"baseline": 1000, "baseline-no-lock": 1300, "pipeline": 1600})
    records = next(w for w in run.workloads[0].windows if w.variant == "pipeline").records
    records[0] = replace(records[0], failed_images=1, error="INTERNAL: no engine")
    told = _of(run)
    assert told.decision is Decision.WRONG_ANSWERS
    assert told.sentences[0].startswith("Do not switch yet: 1 image of 8015 requests")
    assert "images to `pipeline` got no right answer" in told.sentences[2]


@pytest.mark.parametrize("failing", ["baseline", "baseline-no-lock"])
def test_a_gain_over_one_that_fails_is_not_proven(failing: str, measured: Measure) -> None:
    """Half of its images lost make any pipeline look twice as fast."""
    run = measured({"baseline": 1000, "baseline-no-lock": 1300, "pipeline": 1600})
    for window in run.workloads[0].windows:
        if window.variant == failing:
            window.records[::2] = [
                replace(record, failed_images=1, error="INTERNAL") for record in window.records[::2]
            ]
    told = _of(run)
    assert told.decision is Decision.NOT_PROVEN
    assert f"images to `{failing}` got no right answer, so that the ratio" in told.sentences[0]


def test_a_control_that_answered_nothing_was_measured(measured: Measure) -> None:
    run = measured({"baseline": 10, "baseline-no-lock": 13, "pipeline": 16})
    for window in run.workloads[0].windows:
        if window.variant == "baseline-no-lock":
            window.records[:] = [replace(r, failed_images=1, error="x") for r in window.records]
    told = _of(run)
    assert "no control was measured" not in told.sentences[1]
    assert "the control beside it, `baseline-no-lock`, has no ratio" in told.sentences[1]


def test_a_control_that_scatters_is_no_proof_against_the_pipeline(measured: Measure) -> None:
    told = _of(measured({"baseline": 900, "baseline-no-lock": 1600, "pipeline": 1580}, scatter=60))
    assert told.decision is Decision.CONTROL_SUFFICES
    assert told.sentences[0].startswith("No need is proven: `pipeline` serves ")


@pytest.mark.parametrize("rates", [{"baseline": 100}, {"pipeline": 100, "in-process": 200}])
def test_one_side_alone_decides_nothing(rates: dict[str, int], measured: Measure) -> None:
    told = _of(measured(rates))
    assert told.decision is Decision.NOTHING_TO_COMPARE
    assert "was measured" in told.sentences[0]


def test_a_variant_that_answered_nothing_has_no_ratio(measured: Measure) -> None:
    run = measured({"baseline": 10, "pipeline": 16})
    for window in run.workloads[0].windows:
        if window.variant == "baseline":
            window.records[:] = [replace(r, failed_images=1, error="x") for r in window.records]
    told = _of(run)
    assert told.decision is Decision.NOT_PROVEN
    assert told.sentences[0].startswith("Not proven: 65 images to `baseline` got no right answer")
    assert told.sentences[2].startswith("Nothing is sure: ")


def test_repeats_that_pair_with_nothing_have_no_ratio(
    repeat_of: Callable[..., Window], run_of: Callable[..., Run]
) -> None:
    windows = [repeat_of(name, n, [100.0] * 100, 1.0) for n, name in enumerate(_BOTH, 1)]
    told = _of(run_of(_BOTH, windows))
    assert told.decision is Decision.NOT_PROVEN
    assert told.sentences[2] == "Nothing is sure: there is no ratio."


def test_what_weakens_the_numbers_is_told_in_plain_words(
    repeat_of: Callable[..., Window], run_of: Callable[..., Run]
) -> None:
    names = {"baseline": 1000, "baseline-no-lock": 1300, "pipeline": 1600}
    windows = [
        repeat_of(name, n, [10_000 / (rate + n)] * (rate + n), 1.0, foreign_cores=0.5)
        for n in (1, 2, 3)
        for name, rate in names.items()
    ]
    told = _of(replace(run_of(list(names), windows), complete=False))
    assert told.decision is Decision.SWITCH
    sure = told.sentences[2]
    assert sure.startswith("Fairly sure, to be read with care: 3 paired repeats")
    assert "but 3 repeats are fewer than 5, the measurement ended before its time and " in sure
    used = "other programs used the machine while `baseline`, `pipeline` and `baseline-no-lock` ran"
    assert used in sure


def test_instances_are_not_called_batching_where_batching_is_off(measured: Measure) -> None:
    run = measured({"baseline": 1000, "baseline-no-lock": 1300, "pipeline": 1600})
    variants = run.workloads[0].variants
    assert variants[2].server is not None
    server = {**variants[2].server, "settings": {"max_batch_size": "1"}}
    variants[2] = replace(variants[2], server=server)
    assert "instances without batching (1.23 times" in _of(run).sentences[1]
