"""Where images are decoded, where `--decode` leaves it open."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from engine.contexts.cuda_device import all_have_jpeg_engines
from engine.errors import EngineError
from engine.registry import choose_engine
from pipeline.backends.nvimgcodec_library import why_unusable
from service.handlers.handler_settings import HandlerSettings

CPU, GPU = "cpu", "gpu"
# Keys whose values mean another thing in the other graph, or nothing.
_OF_ONE_GRAPH = ("backend", "next", "reduced", "instance_num")


class DecodingPlace(NamedTuple):
    """Where images are decoded.

    Attributes:
        name: "cpu" or "gpu".
        reason: why there, as a short phrase.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name.upper()} ({self.reason})"


def decoding_place(settings: HandlerSettings, cpu_nodes: Collection[str]) -> DecodingPlace:
    """What `--decode` says, or where the shipped graphs decode faster on this host.

    That is the GPU, where one runs the model and all that this process sees have a JPEG engine, so
    that workers with a part of the GPUs decide alike. Its pixels differ a little from the CPU's,
    and so do the scores.

    Args:
        settings: those of the service, without `--config`.
        cpu_nodes: nodes that only the graph that decodes on the CPU has.
    """
    if settings.decode != "auto":
        return DecodingPlace(settings.decode, "--decode")
    if why := _why_not_on_gpu(settings, cpu_nodes):
        return DecodingPlace(CPU, f"auto: {why}")
    return DecodingPlace(
        GPU, "auto: the GPU has a JPEG engine; --decode cpu gives the CPU's pixels"
    )


def _why_not_on_gpu(settings: HandlerSettings, cpu_nodes: Collection[str]) -> str:
    try:
        choice = choose_engine(settings.engine, settings.precision)
    except EngineError:
        # Whoever needs the engine tells it.
        return "there is no such engine here"
    if choice.device != "cuda":
        return "the engine runs on the CPU"
    if settings.resize is not None:
        return "--resize keeps the aspect ratio, which the GPU's operator does not"
    if settings.reduced_decoding:
        return "--reduced-decoding is for the CPU's decoder"
    for key in settings.overrides:
        node, _, own = key.rpartition(".")
        if node in cpu_nodes or own in _OF_ONE_GRAPH:
            return f"--set {key} is about the graph that decodes there"
    if why := why_unusable():
        return why
    if not all_have_jpeg_engines():
        return "a GPU has no JPEG engine"
    return ""
