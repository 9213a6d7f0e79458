"""What the service asks of a handler, and what a handler gets from the service.

Both handlers implement `Handler`; the service knows them only through it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.caller import Caller


class ConfigurationError(Exception):
    """A setting, model or configuration that cannot work. The message is one line for the user."""


class ImageFailure(Exception):  # noqa: N818 (an outcome that is returned, not an error that is raised)
    """Why one image has no scores; its neighbours in the call are not affected."""


class InvalidImageError(ImageFailure):
    """The bytes are not an image that can be decoded."""


class DeadlineExceededError(ImageFailure):
    """The image was not finished while somebody waited for it, for as long as the call may stay."""


class CallerGoneError(DeadlineExceededError):
    """Nobody waits for the image any more: the client has closed its connection."""


@dataclass(frozen=True)
class Deadline:
    """When nobody waits for a call any more: its time has passed, or its client has gone.

    Handlers check it before they decode an image, and again before they infer.

    Attributes:
        at_s: the end of the call's stay, on the monotonic clock; infinite where it has none.
        timeout_ms: how long the stay was to be, for the client; 0 where it has no end.
        caller: the client; None where no connection is behind the call.
    """

    at_s: float
    timeout_ms: int
    caller: Caller | None = None

    @classmethod
    def after(cls, timeout_ms: int) -> Deadline:
        """The deadline of a call that arrives now, whoever makes it."""
        return cls(time.monotonic() + timeout_ms / 1000, timeout_ms)

    def remaining_s(self) -> float:
        """Seconds left, as many as a lock's timeout takes at most; negative when it has passed."""
        return min(self.at_s - time.monotonic(), threading.TIMEOUT_MAX)

    def failure(self) -> DeadlineExceededError:
        """What becomes of an image that was dropped or not finished."""
        if self.remaining_s() > 0:
            return CallerGoneError("dropped, because its client had closed the connection")
        return DeadlineExceededError(f"not finished within timeout_ms = {self.timeout_ms}")

    def has_gone(self) -> bool:
        """Whether the client has gone."""
        return self.caller is not None and self.caller.has_gone()

    def check(self) -> None:
        """Raise DeadlineExceededError if it has passed, CallerGoneError if the client has gone."""
        if self.remaining_s() <= 0 or self.has_gone():
            raise self.failure()


@dataclass(frozen=True)
class Scores:
    """What a handler says of one image.

    Attributes:
        probabilities: float32 array of shape (classes,).
        stage_times_ms: stage name to milliseconds, in the order the stages ran.
    """

    probabilities: npt.NDArray[np.float32]
    stage_times_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class HandlerInfo:
    """What runs, for `server_info`. See ServerInfo in the IDL for the other fields.

    Attributes:
        images_at_work: how many images it works on at once; any more wait in the server.
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


class Handler(Protocol):
    """Classifies images; called from many threads at once."""

    def classify(
        self, images: Sequence[bytes], deadline: Deadline | None
    ) -> list[Scores | ImageFailure]:
        """One outcome per image, in order. A bad image yields its failure and is not raised.

        Images are not decoded, and not inferred, for a call that nobody waits for any more.
        """

    def info(self) -> HandlerInfo:
        """What runs."""

    def why_not_ready(self) -> str:
        """Why no image can be classified just now; "" where they can."""

    def close(self) -> None:
        """Stop the handler's threads and free its engine. No call is in progress."""


@dataclass(frozen=True)
class HandlerSettings:
    """What the command line says, for a handler to build itself from.

    Attributes:
        engine: a provider's name, or "auto".
        precision: precision to run, or None for the configuration's or the default.
        model: a model file, a name from the model zoo, or None for the configuration's or the
            default.
        weights: state-dict file for the zoo's model, or None for seeded or packaged weights.
        config: the pipeline's TOML file, or None for the shipped one.
        overrides: "KEY" or "NODE.KEY" to value, laid over the TOML.
        backends: Python file that registers backends and filters of the pipeline, or None.
        mean: what is subtracted from each channel in 0..255, or None for the model's own.
        std: what each channel is divided by then, or None for the model's own.
        lock: False runs the baseline without its lock.
        max_batch_size: rows of the largest batch of the baseline's engine.
        decode: "cpu" or "gpu": where the pipeline decodes images, which chooses the shipped TOML
            file that it takes as its template.
        shared_folder: a folder that the workers of one server have in common and nobody else can
            enter, or None where one process is the server.
        devices: numbers of the GPUs that the handler uses, all different, the first one where it
            uses one only; empty for the engine's own choice.
        calibration_images: folder of images that int8 learns its ranges from, or None for the
            configuration's.
    """

    engine: str = "auto"
    precision: str | None = None
    model: str | None = None
    weights: str | None = None
    config: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    backends: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    lock: bool = True
    max_batch_size: int = 4
    decode: str = "cpu"
    devices: tuple[int, ...] = ()
    shared_folder: str | None = None
    calibration_images: str | None = None
