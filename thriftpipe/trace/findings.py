"""What a recording shows, in sentences and in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, median

from pipeline.runtime.counts import LeaveReason
from thriftpipe.trace.recording import Batch, Recording, Side


@dataclass(frozen=True)
class NodeFacts:
    """What a node of a side did.

    Attributes:
        instances: how many it has.
        batches: how many they ran.
        rows: of a batch, on average; 0 where there is none.
        waited_ms: a request, in the median.
        worked_ms: an instance on a batch, in the median.
        busy: the share of the instances' time in which they worked, 0 to 1.
        reasons: why batches left.
    """

    name: str
    instances: int
    batches: int
    rows: float
    waited_ms: float
    worked_ms: float
    busy: float
    reasons: Counter[str]


def node_facts(side: Side) -> list[NodeFacts]:
    """A row a node, in the order of the file."""
    return [_of_node(side, name, len(names)) for name, names in side.instances.items()]


def _of_node(side: Side, name: str, instances: int) -> NodeFacts:
    batches = [batch for batch in side.batches if batch.node == name]
    worked_ms = [_length_ms(batch) for batch in batches]
    waited_ms = [
        (batch.began_s - visit.queued_s) * 1000 for batch in batches for visit in batch.visits
    ]
    return NodeFacts(
        name,
        instances,
        len(batches),
        fmean(batch.rows for batch in batches) if batches else 0.0,
        median(waited_ms) if waited_ms else 0.0,
        median(worked_ms) if worked_ms else 0.0,
        sum(worked_ms) / (1000 * side.wall_s * instances),
        Counter(batch.reason for batch in batches),
    )


def _length_ms(batch: Batch) -> float:
    return (batch.ended_s - batch.began_s) * 1000


def images_a_second(side: Side) -> float:
    """Images that got a result, by the time from the first request to the last answer."""
    return sum(not request.failure for request in side.requests) / side.wall_s


def latency_ms(side: Side) -> float:
    """Of a request, in the median."""
    return median((request.ended_s - request.began_s) * 1000 for request in side.requests)


def verdict(recording: Recording) -> list[str]:
    """What came out, in a sentence or two."""
    pipeline, baseline = recording.pipeline, recording.baseline
    images, clients = len(pipeline.requests), pipeline.clients
    speed = images_a_second(pipeline)
    if baseline is None:
        return [
            f"{images} images from {clients} clients: the pipeline took "
            f"{pipeline.wall_s * 1000:.0f} ms ({speed:.0f} a second)."
        ]
    sentences = [
        f"{images} images from {clients} clients: the locked baseline took "
        f"{baseline.wall_s * 1000:.0f} ms ({images_a_second(baseline):.0f} a second), the pipeline "
        f"{pipeline.wall_s * 1000:.0f} ms ({speed:.0f} a second)."
    ]
    failed = [sum(bool(it.failure) for it in side.requests) for side in (baseline, pipeline)]
    if any(failed):
        sentences.append(
            f"{failed[0]} and {failed[1]} of them failed, so the two cannot be compared."
        )
    else:
        sentences.append(
            f"That is x {baseline.wall_s / pipeline.wall_s:.2f} in one short run, which shows how "
            "and does not prove how much; thriftpipe compare measures."
        )
    return sentences


def remarks(recording: Recording) -> Iterator[str]:
    """What to look at, in plain words."""
    if (baseline := recording.baseline) is not None:
        (lock,) = node_facts(baseline)
        share = 100 * lock.waited_ms / latency_ms(baseline)
        yield (
            f"In the baseline one request at a time has the engine, for {lock.worked_ms:.1f} ms. "
            f"Half of the requests wait {lock.waited_ms:.1f} ms or longer for the lock, "
            f"{share:.0f} % of the usual {latency_ms(baseline):.1f} ms."
        )
    pipeline = recording.pipeline
    for node in node_facts(pipeline):
        batches = [batch for batch in pipeline.batches if batch.node == node.name]
        if batches and all(batch.is_inline for batch in batches):
            yield (
                f"{node.name}: each client's own thread does the work with an idle instance's "
                "backends, which saves two thread switches an image."
            )
        elif node.name in pipeline.engines:
            yield _of_batches(node, recording.largest[node.name])
        elif node.rows == 1:
            yield f"{node.name}: images one at a time in each of {node.instances} instances."
        elif batches:
            yield f"{node.name}: {node.batches} batches of {node.rows:.1f} images on average."


def _of_batches(node: NodeFacts, largest: int) -> str:
    """What became of an engine's batches of up to `largest` rows."""
    if largest == 1:
        return (
            f"{node.name}: batching is off, max is 1: images run one at a time in each of "
            f"{node.instances} instances."
        )
    if node.rows <= 1:
        return (
            f"{node.name}: up to {largest} images fit a batch, and each left alone, since an "
            "instance was idle whenever one came."
        )
    counts = ", ".join(f"{node.reasons[reason.value]} {reason.value}" for reason in LeaveReason)
    return (
        f"{node.name}: {node.batches} batches of {node.rows:.1f} images on average, of {largest} "
        f"that fit ({counts})."
    )
