"""What the service asks of a handler.

Both handlers implement `Handler`; the service knows them only through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from interfaces.stats import NodeStats, Stats
from service.handlers.deadline import Deadline
from service.handlers.outcomes import ImageFailure, Scores


@dataclass(frozen=True)
class HandlerInfo:
    """What runs, for `server_info`. See ServerInfo in the IDL for the other fields.

    Attributes:
        images_at_work: how many images it works on at once; any more wait in the server.
        note: what users of the model's answers have to know, in one line, or "".
    """

    engine: str
    precision: str
    model: str
    model_sha256: str
    config_sha256: str
    num_classes: int
    versions: dict[str, str]
    settings: dict[str, str]
    images_at_work: int = 1
    note: str = ""


@dataclass(frozen=True)
class HandlerStats:
    """What a handler has done.

    Attributes:
        nodes: the parts of it that run in this process.
        elsewhere: what a process that computes for several workers has done for all of them, with
            its `engine_process`; None where there is none.
    """

    nodes: dict[str, NodeStats] = field(default_factory=dict)
    elsewhere: Stats | None = None


class Handler(Protocol):
    """Classifies images; called from many threads at once."""

    def classify(
        self, images: Sequence[bytes], deadline: Deadline | None
    ) -> list[Scores | ImageFailure]:
        """One outcome per image, in order. A bad image yields its failure and is not raised.

        Images of an abandoned call are neither decoded nor inferred.
        """

    def info(self) -> HandlerInfo:
        """What runs."""

    def stats(self) -> HandlerStats:
        """What it has done so far."""

    def why_not_ready(self) -> str:
        """Why no image can be classified just now; "" where they can."""

    def close(self) -> None:
        """Stop the handler's threads and free its engine. No call is in progress."""


@runtime_checkable
class BeginningHandler(Protocol):
    """A handler whose callers need not wait, so that one thread can have several calls there."""

    def begin(
        self, images: Sequence[bytes], deadline: Deadline, done: Callable[[], None]
    ) -> Callable[[], list[Scores | ImageFailure]]:
        """Begin to classify, and return at once.

        Args:
            images: at least one.
            deadline: of the call.
            done: called when all are done, in any thread, or at once: it neither waits nor raises.
                Not when the time is over.

        Returns:
            What gives one outcome per image, in order. It has to be called once: when `done` was,
            or the time is over.
        """
