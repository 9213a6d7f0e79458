"""Where the time of a request goes: from `stage_times_ms` to the parts that add up to it.

A pipeline tells "NODE.queue", "NODE.forward" and, with `profile_stages`, "NODE.BACKEND" for what
lies within NODE.forward, where the engine goes by its own name; in older folders it is called
TensorrtTensor. The baseline tells "decode", "preprocess", "lock", "infer". What the
client measured beyond them is the call itself and the waking of threads in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from interfaces.engines import PROVIDERS
from loadtest.records.run import StagedRequest, StageRun

RPC = "RPC and hand-over"
QUEUE, DECODE, RESIZE, COPY, INFER, OTHER = "queue", "decode", "resize", "copy", "infer", "other"
_ENGINES = {provider.name for provider in PROVIDERS}
# In the order in which a request passes them.
KINDS = (QUEUE, DECODE, RESIZE, COPY, INFER, OTHER, RPC)
# The first kind of which a word is in the stage's name; more specific words come first.
_WORDS = (
    (COPY, (".copy", "transfer")),
    (INFER, ("infer", "tensorrt", "torchscript")),
    (QUEUE, ("queue", "lock", "wait")),
    (DECODE, ("decode",)),
    (RESIZE, ("resize", "preprocess", "cvtcolor", "mat2tensor", "normalize", "crop")),
)


@dataclass(frozen=True)
class StagePart:
    """One part of a request's time.

    Attributes:
        name: the stage as the server calls it, or RPC.
        kind: one of KINDS.
        median_ms: over the requests.
        mean_ms: over the requests; those of all parts add up to the mean latency.
        share: of the mean latency, 0 to 1.
    """

    name: str
    kind: str
    median_ms: float
    mean_ms: float
    share: float


def stage_parts(run: StageRun) -> list[StagePart]:
    """The parts of a variant's requests, in the order of the server's stages, the call last.

    Empty where the server told no stages.
    """
    if not run.requests or not any(request.stages_ms for request in run.requests):
        return []
    by_request = [_own_times(request) for request in run.requests]
    names = list(dict.fromkeys(name for own in by_request for name in own))
    latency_ms = fmean(request.latency_ms for request in run.requests)
    parts = []
    for name in names:
        values = [own.get(name, 0.0) for own in by_request]
        mean_ms = fmean(values)
        parts.append(StagePart(name, _kind(name), median(values), mean_ms, mean_ms / latency_ms))
    return parts


def by_kind(parts: Sequence[StagePart]) -> dict[str, float]:
    """Kind to mean in ms, in the order of KINDS, without kinds that there are none of."""
    kinds = {part.kind for part in parts}
    return {
        kind: sum(part.mean_ms for part in parts if part.kind == kind)
        for kind in KINDS
        if kind in kinds
    }


def _own_times(request: StagedRequest) -> dict[str, float]:
    """Every stage's time without that of the stages within it, and the rest of the latency."""
    times = request.stages_ms
    own: dict[str, float] = {}
    top_ms = 0.0
    for name, value_ms in times.items():
        within = [other for other in times if _parent(other, times) == name]
        rest_ms = max(0.0, value_ms - sum(times[other] for other in within))
        own[f"{name}, rest" if within else name] = rest_ms
        if _parent(name, times) is None:
            top_ms += value_ms
    own[RPC] = max(0.0, request.latency_ms - top_ms)
    return own


def _parent(name: str, names: dict[str, float]) -> str | None:
    """The stage within which a stage lies: the longest name before a dot, or its node's forward."""
    node, _, stage = name.partition(".")
    head, dot, _ = name.rpartition(".")
    while dot:
        if head in names:
            return head
        head, dot, _ = head.rpartition(".")
    forward = f"{node}.forward"
    return forward if stage not in {"", "queue", "forward"} and forward in names else None


def _kind(name: str) -> str:
    if name == RPC:
        return RPC
    if name.partition(".")[2] in _ENGINES:
        return INFER
    lower = name.lower()
    if lower.endswith(", rest"):
        return OTHER
    # A node's name may be one of these words, so only the part after it counts.
    stage = lower.partition(".")[2] or lower
    for kind, words in _WORDS:
        if any(word in (f".{stage}" if word[0] == "." else stage) for word in words):
            return kind
    return OTHER
