"""The verdict of a comparison in three sentences: switch or not, what gives the gain, how sure.

Only ratios that are paired within the run decide, each by its 95 % interval. A gain counts as the
pipeline's own where it is beyond chance beside a control, too: the baseline with as many processes
and, where an engine can do without it, without its lock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from loadtest.records.run import Run, WorkloadRun
from loadtest.report.marks import marked
from loadtest.report.summary import Row, tail_change
from loadtest.report.tables import factor_interval
from loadtest.report.waterfall import LOCK, Step, Waterfall
from loadtest.servers.variants import BASELINE, CONTROL, PIPELINE, is_pipeline
from measurement.statistics import Ratio

ENOUGH_REPEATS = 5
"""The least for numbers to rely on."""
# Of its images the baseline may lose fewer than that: it moves no ratio by more.
_LOST_SHARE = 0.01
# A difference below that is none that anything should be switched for, however sure it is: the
# interval knows nothing of another day.
_LEAST_SHARE = 0.01


class Decision(Enum):
    """The answer to "should I switch to the pipeline?"."""

    SWITCH = "switch"
    CAUSE_UNKNOWN = "faster_cause_unknown"
    CONTROL_SUFFICES = "control_suffices"
    NO_DIFFERENCE = "no_difference"
    SLOWER = "slower"
    WRONG_ANSWERS = "wrong_answers"
    NOT_PROVEN = "not_proven"
    NOTHING_TO_COMPARE = "nothing_to_compare"

    @property
    def title(self) -> str:
        """The answer in a few words."""
        return _TITLES[self]


_TITLES = {
    Decision.SWITCH: "Switch",
    Decision.CAUSE_UNKNOWN: "Faster, cause unknown",
    Decision.CONTROL_SUFFICES: "No proven need to switch",
    Decision.NO_DIFFERENCE: "No proven difference",
    Decision.SLOWER: "Do not switch",
    Decision.WRONG_ANSWERS: "Wrong answers",
    Decision.NOT_PROVEN: "Not proven",
    Decision.NOTHING_TO_COMPARE: "Nothing to compare",
}


@dataclass(frozen=True)
class Verdict:
    """What a workload's comparison says.

    Attributes:
        decision: the answer.
        sentences: whether to switch; what gives the gain; how sure that is.
        pipeline: the fastest pipeline; None where none, or no baseline, was measured.
        gain: its images per second against the baseline's; None where one answered nothing.
        compared: the pipeline that stands beside the control; another one than the fastest where
            no control has as many processes as that.
        control: the row beside it; None where none was measured.
        control_ratio: of these two.
    """

    decision: Decision
    sentences: tuple[str, str, str]
    pipeline: Row | None = None
    gain: Ratio | None = None
    compared: Row | None = None
    control: Row | None = None
    control_ratio: Ratio | None = None


def verdict(
    run: Run, workload: WorkloadRun, rows: Sequence[Row], found: Waterfall | None, *, on_gpu: bool
) -> Verdict:
    """The verdict on a workload.

    Args:
        run: the measurement.
        workload: the workload.
        rows: its rows.
        found: its waterfall.
        on_gpu: whether its engine runs on a GPU, which needs the lock.
    """
    baseline = next((row for row in rows if row.name == BASELINE), None)
    pipelines = [row for row in rows if is_pipeline(row.name)]
    if baseline is None or not pipelines:
        missing = "no baseline" if baseline is None else "no pipeline"
        return Verdict(
            Decision.NOTHING_TO_COMPARE,
            (
                f"There is nothing to decide: {missing} was measured.",
                f"A gain is explained with `--variants {BASELINE},{CONTROL},{PIPELINE}-auto`.",
                "What was measured stands below, with its intervals.",
            ),
        )
    fastest = max(pipelines, key=lambda row: row.qps.median)
    gain = fastest.ratio_to(BASELINE)
    compared, control = _with_control(rows, fastest, pipelines, on_gpu=on_gpu)
    beside = None if control is None or compared is None else compared.ratio_to(control.name)
    failing = _failing(baseline, compared, control)
    decision = _decision(fastest, gain, compared, beside, failing)
    parts = (fastest, gain, compared, control, beside)
    told = Verdict(decision, ("", "", ""), *parts)
    sentences = (
        _switch(told, baseline, failing),
        _cause(told, found, on_gpu=on_gpu),
        _sureness(told, run, workload, baseline),
    )
    return Verdict(decision, sentences, *parts)


def _with_control(
    rows: Sequence[Row], fastest: Row, pipelines: Sequence[Row], *, on_gpu: bool
) -> tuple[Row | None, Row | None]:
    """A pipeline, and the fastest row of the baseline that has all that is not the pipeline's own.

    The fastest pipeline, or, where no control has as many processes, the fastest that has one.
    """
    controls = [row for row in rows if row.base == (BASELINE if on_gpu else CONTROL)]
    others = sorted(pipelines, key=lambda row: row.qps.median, reverse=True)
    for pipeline in (fastest, *others):
        equals = [row for row in controls if row.processes >= pipeline.processes]
        if equals:
            return pipeline, max(equals, key=lambda row: row.qps.median)
    return None, None


def _failing(*decisive: Row | None) -> list[str]:
    """Rows that lost many images, in words: what fails serves less, a ratio to it says nothing."""
    rows = {row.name: row for row in decisive if row is not None}
    return [
        f"{_images(row.failed_images)} to `{name}`"
        for name, row in rows.items()
        if row.failed_images > _LOST_SHARE * row.images
    ]


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _is_tiny(ratio: Ratio) -> bool:
    return abs(ratio.spread.median - 1) < _LEAST_SHARE


def _is_gain(ratio: Ratio) -> bool:
    return ratio.is_distinct and ratio.spread.median > 1 and not _is_tiny(ratio)


def _decision(
    fastest: Row,
    gain: Ratio | None,
    compared: Row | None,
    beside: Ratio | None,
    failing: Sequence[str],
) -> Decision:
    if fastest.failed_images:
        return Decision.WRONG_ANSWERS
    if failing or gain is None or gain.interval.low is None:
        return Decision.NOT_PROVEN
    if not gain.is_distinct or _is_tiny(gain):
        return Decision.NO_DIFFERENCE
    if gain.spread.median < 1:
        return Decision.SLOWER
    if beside is not None and _is_gain(beside):
        return Decision.SWITCH
    # A control with fewer processes leaves open what more of them would do for it.
    if beside is None or beside.interval.low is None or compared is not fastest:
        return Decision.CAUSE_UNKNOWN
    return Decision.CONTROL_SUFFICES


def _switch(told: Verdict, baseline: Row, failing: Sequence[str]) -> str:
    """The first sentence."""
    fastest, gain = told.pipeline, told.gain
    assert fastest is not None  # noqa: S101 (a verdict with words has one)
    if told.decision is Decision.WRONG_ANSWERS:
        return (
            f"Do not switch yet: {_images(fastest.failed_images)} of {fastest.requests} requests "
            f"to `{fastest.name}` got no right answer, and a fast wrong answer is worth nothing."
        )
    if failing:
        return (
            f"Not proven: {_listed(failing)} got no right answer, so that the ratio does not "
            "compare the same work."
        )
    if gain is None:
        return "Not proven: a variant answered nothing, or no repeat has both of them."
    rates = f"({fastest.qps.median:.1f} against {baseline.qps.median:.1f})"
    serves = (
        f"`{fastest.name}` serves {gain.spread.median:.2f} times the images per second of "
        f"`{BASELINE}` {rates}"
    )
    tail = _tail(fastest, baseline)
    match told.decision:
        case Decision.SWITCH:
            return f"Yes, switch: {serves}{tail}."
        case Decision.CAUSE_UNKNOWN:
            return (
                f"Perhaps: {serves}{tail}, but no control tells whether `{BASELINE}` could have "
                "the same."
            )
        case Decision.CONTROL_SUFFICES:
            ratio = told.control_ratio
            is_less = ratio is not None and ratio.is_distinct and ratio.spread.median < 1
            start = "Not for throughput" if is_less else "No need is proven"
            return f"{start}: {serves}, but {_beside_control(told)}."
        case Decision.SLOWER:
            return f"No: {serves}, which is less{tail}."
        case Decision.NO_DIFFERENCE:
            why = "a difference below 1 %" if gain.is_distinct else "within chance"
            return f"No difference is proven: {serves}, which is {why}{tail}."
        case _:
            return f"Not proven: {serves} in the only repeat that both have{tail}."


def _beside_control(told: Verdict) -> str:
    """That the pipeline has no gain beside a control, which has what the gain comes from."""
    fastest, control, ratio = told.pipeline, told.control, told.control_ratio
    assert fastest is not None  # noqa: S101 (the decision is about all three)
    assert control is not None  # noqa: S101
    assert ratio is not None  # noqa: S101
    rates = f"({fastest.qps.median:.1f} against {control.qps.median:.1f})"
    tail = _tail(fastest, control)
    which = f"`{control.name}`, which is the baseline {_made_of(control)}"
    if ratio.is_distinct and ratio.spread.median < 1:
        return f"{which}, serves more {rates}{tail}"
    gain = "less than 1 % is gained" if ratio.is_distinct else "no gain is proven"
    return f"{gain} beside {which} {rates}{tail}"


def _made_of(control: Row) -> str:
    """What a control has that the baseline has not, in words."""
    parts = ["without its lock"] if control.base == CONTROL else []
    if control.processes > 1:
        parts.append(f"with {control.processes} processes")
    return " and ".join(parts) or "itself"


def _tail(fastest: Row, other: Row) -> str:
    """The end of a sentence: what becomes of the slowest requests, where that is beyond chance."""
    before, after = other.tp_ms(0.99), fastest.tp_ms(0.99)
    whose = "" if other.name == BASELINE else f" of `{other.name}`"
    match tail_change(other, fastest):
        case "lower":
            return (
                f"; the slowest 1 % take {after:.1f} ms or more instead of {before:.1f} ms{whose}"
            )
        case "higher":
            return f"; but the slowest 1 % take {after:.1f} ms or more, not {before:.1f} ms{whose}"
        case _:
            return ""


def _cause(told: Verdict, found: Waterfall | None, *, on_gpu: bool) -> str:
    """The second sentence."""
    steps = [] if found is None else [_step(step) for step in found.steps[1:]]
    gained = told.gain is not None and told.gain.is_distinct and told.gain.spread.median > 1
    start = "The gain is made of" if gained else "On the way there are"
    parts = f"{start} {_listed(steps)}" if steps else "The way from one to the other is unknown"
    control, compared, beside = told.control, told.compared, told.control_ratio
    if control is not None and compared is not None and beside is None:
        return (
            f"{parts}; the control beside it, `{control.name}`, has no ratio: it or "
            f"`{compared.name}` answered nothing in a repeat, or no repeat has both."
        )
    if control is None or compared is None or beside is None:
        wanted = BASELINE if on_gpu else CONTROL
        count = 1 if told.pipeline is None else told.pipeline.processes
        name = wanted if count == 1 else f"{wanted}-{count}w"
        return f"{parts}; no control was measured beside it: add `{name}` to `--variants`."
    return (
        f"{parts}; the control beside it, `{control.name}`, serves {control.qps.median:.1f} images "
        f"per second, and `{compared.name}` {_times(beside, ' as many')}{_missing(told)}."
    )


def _missing(told: Verdict) -> str:
    """That no control has as many processes as the fastest pipeline, where that is so."""
    if told.compared is told.pipeline or told.pipeline is None:
        return ""
    return f"; no control was measured with {told.pipeline.processes} processes"


def _step(step: Step) -> str:
    label = " together with ".join(step.changes).replace(LOCK, "taking the lock away")
    if step.ratio is None:
        return label
    share = "" if step.share is None else f", {100 * step.share:.0f} % of it"
    return f"{label} ({_times(step.ratio)}{share})"


def _times(ratio: Ratio, what: str = "") -> str:
    """A ratio, and whether it is beyond chance."""
    text = f"{ratio.spread.median:.2f} times{what}"
    if ratio.interval.low is None:
        return f"{text} in one repeat"
    chance = "" if ratio.is_distinct else ", within chance"
    return f"{text} {factor_interval(ratio.interval)}{chance}"


def _listed(parts: Sequence[str]) -> str:
    """Parts of a sentence, the last one after "and"; "" for none."""
    if not parts:
        return ""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _sureness(told: Verdict, run: Run, workload: WorkloadRun, baseline: Row) -> str:
    """The third sentence."""
    gain = told.gain
    doubts = [*_doubts(told, run, baseline)]
    if gain is None:
        return f"Nothing is sure: {_listed(doubts) or 'there is no ratio'}."
    if gain.interval.low is None:
        return (
            "This is not sure at all: one repeat shows no spread; measure again with "
            f"`--repeats {ENOUGH_REPEATS}`."
        )
    low, high = factor_interval(gain.interval).strip("[]").split(", ")
    proof = (
        f"{gain.pairs} paired repeats, taken in turns, put the ratio to `{BASELINE}` between "
        f"{low} and {high} (95 % interval)"
    )
    found = workload.agreement
    answers = (
        f", and all servers gave the same labels to {found['images']} images before"
        if found is not None and not found.get("tipped_labels")
        else ""
    )
    if not gain.is_distinct:
        reading = f"; to be read with care: {_listed(doubts)}" if doubts else ""
        return f"All that is sure: {proof}, and a smaller difference cannot be seen{reading}."
    if doubts:
        return f"Fairly sure, to be read with care: {proof}{answers}; but {_listed(doubts)}."
    return f"Sure: {proof}{answers}."


def _doubts(told: Verdict, run: Run, baseline: Row) -> Iterator[str]:
    """What weakens the numbers that decide."""
    if told.gain is not None and 1 < told.gain.pairs < ENOUGH_REPEATS:
        yield f"{told.gain.pairs} repeats are fewer than {ENOUGH_REPEATS}"
    if not run.complete:
        yield "the measurement ended before its time"
    decisive = {
        row.name: row
        for row in (baseline, told.pipeline, told.compared, told.control)
        if row is not None
    }
    for mark, found in marked([*decisive.values()]):
        yield mark.doubt.format(names=_listed([f"`{row.name}`" for row in found]))
