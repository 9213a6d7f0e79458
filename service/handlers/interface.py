"""What the service asks of a handler, and what a handler gets from the service.

Both handlers implement `Handler`; the service knows them only through it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from engine.onnx_graph.activations import OUTPUT_ACTIVATIONS
from engine.onnx_graph.inputs import COLORS, LAYOUTS
from interfaces.image_folder import SKIP_BAD_IMAGES_HELP
from interfaces.kinds import (
    ASSIGNMENT,
    CHANNELS,
    COUNT,
    FILE,
    GPU_NUMBERS,
    OFF_SWITCH,
    SIDE,
    SIZE,
    SWITCH,
    TEXT,
    Kind,
    one_of,
)
from interfaces.options import option
from interfaces.service import MAX_FRAME_BYTES
from interfaces.stats import NodeStats, Stats
from service.call_counts import (
    DEADLINE_EXCEEDED,
    DISCONNECTED,
    INTERNAL_ERROR,
    INVALID_IMAGE,
    OK,
)
from service.wire.peer import Peer


class ImageFailure(Exception):  # noqa: N818 (an outcome that is returned, not an error that is raised)
    """Why one image has no scores; its neighbours in the call are not affected.

    Attributes:
        outcome: the word under which it is counted.
        stage_times_ms: none; as of `Scores`.
    """

    outcome: ClassVar[str] = INTERNAL_ERROR
    stage_times_ms: ClassVar[Mapping[str, float]] = MappingProxyType({})


class InvalidImageError(ImageFailure):
    """The bytes are not an image that can be decoded."""

    outcome = INVALID_IMAGE


class DeadlineExceededError(ImageFailure):
    """The image was not finished within the time that its call may stay."""

    outcome = DEADLINE_EXCEEDED


class ClientDisconnectedError(DeadlineExceededError):
    """The image was dropped: the client has closed its connection."""

    outcome = DISCONNECTED


class ImageDone(Protocol):
    """Called for an image that is done before its call is."""

    def __call__(self, *, worked_on: bool) -> None:
        """Any thread may call it.

        Args:
            worked_on: whether it was classified, or found to be no image, and not dropped.
        """


@dataclass(frozen=True)
class Deadline:
    """The end of a call: its time has passed, or its client has disconnected.

    Handlers check it before they decode an image, and again before they infer.

    Attributes:
        at_s: the end of the call's stay, on the monotonic clock; infinite where it has none.
        timeout_ms: how long the stay was to be, for the client; 0 where it has no end.
        peer: the client; None where no connection is behind the call.
        image_done: called for each image of a call of several; None for no such call.
    """

    at_s: float
    timeout_ms: int
    peer: Peer | None = None
    image_done: ImageDone | None = None

    @classmethod
    def after(cls, timeout_ms: int) -> Deadline:
        """The deadline of a call that arrives now, without a connection behind it."""
        return cls(time.monotonic() + timeout_ms / 1000, timeout_ms)

    def remaining_s(self) -> float:
        """Seconds left, as many as a lock's timeout takes at most; negative when it has passed."""
        return min(self.at_s - time.monotonic(), threading.TIMEOUT_MAX)

    def failure(self) -> DeadlineExceededError:
        """What becomes of an image that was dropped or not finished."""
        if self.remaining_s() > 0:
            return ClientDisconnectedError("dropped, because its client had closed the connection")
        return DeadlineExceededError(f"not finished within timeout_ms = {self.timeout_ms}")

    def is_disconnected(self) -> bool:
        """Whether the client has gone."""
        return self.peer is not None and self.peer.is_disconnected()

    def check(self) -> None:
        """Raise DeadlineExceededError, or its subclass for a client that has disconnected."""
        if self.remaining_s() <= 0 or self.is_disconnected():
            raise self.failure()


@dataclass(frozen=True)
class Scores:
    """What a handler says of one image.

    Attributes:
        probabilities: float32 array of shape (classes,).
        stage_times_ms: stage name to milliseconds, in the order the stages ran.
        outcome: the word under which it is counted.
    """

    outcome: ClassVar[str] = OK
    probabilities: npt.NDArray[np.float32]
    stage_times_ms: dict[str, float] = field(default_factory=dict)

    def are_finite(self) -> bool:
        """Whether all of them are finite numbers."""
        # A sum is finite where its terms are, unless they are huge; it costs half as much.
        return math.isfinite(np.add.reduce(self.probabilities)) or bool(
            np.isfinite(self.probabilities).all()
        )


def was_worked_on(outcome: Scores | BaseException | None) -> bool:
    """Whether an image's outcome took the work of an image; None stands for scores."""
    return outcome is None or isinstance(outcome, Scores | InvalidImageError)


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


_BASELINE_HAS_NO_GRAPH = "the baseline has no TOML file and no nodes; it is for --handler pipeline"
_NULL_HAS_NO_MODEL = {"null": "the null handler runs no model"}
_OF_PIPELINE = {**_NULL_HAS_NO_MODEL, "baseline": _BASELINE_HAS_NO_GRAPH}


def _option(default: Any, help: str, kind: Kind = TEXT, **details: Any) -> Any:
    others = {"group": "model", "refused": _NULL_HAS_NO_MODEL, **details}
    return option(default, help, kind, **others)


@dataclass(frozen=True)
class HandlerSettings:
    """The settings from which a handler builds itself; most are options of the command line.

    Attributes:
        overrides: "KEY" or "NODE.KEY" to value, which replace those of the TOML file.
        shared_folder: a folder that the workers of one server have in common and no other user can
            enter, or None where one process is the server.
        hang_timeout_s: how long a process of the server may give no sign of life before it is
            replaced; 0 for ever.
        max_frame_bytes: size of the largest message.
        max_buffered_bytes: of the server's messages; copies of their images that the handler
            holds in memory take a quarter of it at most.
    """

    engine: str = _option("auto", "provider that runs the model")
    precision: str | None = _option(
        None,
        "precision to run, such as fp32 or int8",
        default_text="the configuration's, or what suits the engine",
    )
    model: str | None = _option(
        None,
        "a model of the zoo or an ONNX file",
        metavar="NAME_OR_FILE",
        default_text="the configuration's, or efficientnet_lite0",
    )
    weights: str | None = _option(None, "state dict for the zoo's model", FILE)
    config: str | None = _option(
        None,
        "the pipeline's graph; a file whose only table is [server] has options of the service, for "
        "any handler, and may be given beside a graph",
        FILE,
        metavar="FILE.toml",
        default_text="the shipped one",
        refused=_OF_PIPELINE,
    )
    overrides: Mapping[str, str] = _option(
        dict,
        "change one value of the pipeline's graph; may be given more than once",
        ASSIGNMENT,
        name="set",
        is_repeated=True,
        refused=_OF_PIPELINE,
    )
    backends: str | None = _option(
        None,
        "Python file that registers backends and filters, executed before the pipeline's graph is "
        "read",
        FILE,
        metavar="FILE.py",
        refused=_OF_PIPELINE,
    )
    mean: tuple[float, ...] | None = _option(
        None,
        "subtracted from each channel, in 0..255",
        CHANNELS,
        default_text="the model's own",
    )
    std: tuple[float, ...] | None = _option(
        None,
        "each channel is divided by it then, in 0..255",
        CHANNELS,
        default_text="the model's own",
    )
    layout: str | None = _option(
        None,
        "of the model's input: nchw, channels first, or nhwc, channels last",
        one_of(LAYOUTS),
        default_text="the configuration's, or what the file says",
    )
    color: str | None = _option(
        None,
        "in which order the model takes its three channels; --mean and --std are those of R, G and "
        "B whatever it is",
        one_of(COLORS),
        default_text="the configuration's, or what the file says, else rgb",
    )
    input_size: tuple[int, int] | None = _option(
        None,
        "of the images that the model takes, where its file leaves that open",
        SIZE,
        default_text="the model's own, or 224",
    )
    resize: int | None = _option(
        None,
        "keep the aspect ratio: bring the shorter side of each image to so many pixels, and take "
        "the middle of the size of --crop. Most models of torchvision want 256",
        SIDE,
        default_text="the whole image to the model's size, whatever its aspect ratio",
    )
    crop: tuple[int, int] | None = _option(
        None,
        "goes with --resize: the middle that the model gets; it is the model's size, and says it "
        "where its file leaves that open",
        SIZE,
        default_text="the model's size",
    )
    output: str | None = _option(
        None,
        "the model's output that scores the classes",
        metavar="NAME",
        default_text="the only one of shape N x classes",
    )
    output_activation: str | None = _option(
        None,
        "what makes scores of that output: softmax; sigmoid, for classes that do not exclude each "
        "other, or for one value an image, which gives two classes; none, if it is scores already; "
        "auto, which is none behind a softmax or sigmoid of the model, else softmax",
        one_of(OUTPUT_ACTIVATIONS),
        default_text="the configuration's, or auto",
    )
    calibration_images: str | None = _option(
        None,
        "folder of images like those that will come, for precision int8",
        metavar="DIR",
        default_text="the configuration's",
    )
    skip_bad_images: bool = _option(
        False, "of --calibration-images, " + SKIP_BAD_IMAGES_HELP, SWITCH
    )
    calibrate: str = _option(
        "auto",
        "at the first start on a CPU, measure which batches and how many instances of the engine "
        "are fastest, for what the configuration leaves open; it takes some 3 s and is kept",
        one_of(("auto", "off")),
        refused={
            **_NULL_HAS_NO_MODEL,
            "baseline": "the baseline has no instances, and --max-batch-size sets its batches; it "
            "is for --handler pipeline",
        },
    )
    lock: bool = _option(
        True,
        "run the baseline without its lock, where the engine allows it",
        OFF_SWITCH,
        name="no_lock",
        refused={
            **_NULL_HAS_NO_MODEL,
            "pipeline": "the pipeline takes no lock; it is for --handler baseline",
        },
    )
    max_batch_size: int = _option(
        4,
        "rows of the largest batch of the baseline's engine",
        COUNT,
        refused={
            **_NULL_HAS_NO_MODEL,
            "pipeline": "the pipeline's TOML file sets its batches; use --set NODE.max=8x3x224x224",
        },
    )
    decode: str = _option(
        "cpu",
        "where the pipeline decodes images: chooses the shipped graph",
        one_of(("cpu", "gpu")),
        refused={
            **_NULL_HAS_NO_MODEL,
            "baseline": "the baseline decodes on the CPU; it is for --handler pipeline",
        },
    )
    reduced_decoding: bool = _option(
        False,
        "decode JPEGs no larger than resizing needs: at a half, a quarter or an eighth of each "
        "side; gives other pixels, and so slightly other scores",
        SWITCH,
    )
    devices: tuple[int, ...] = _option(
        (),
        "numbers of the GPUs to use, such as 0,1",
        GPU_NUMBERS,
        default_text="the engine's choice",
    )
    shared_folder: str | None = None
    hang_timeout_s: float = 10.0
    max_frame_bytes: int = MAX_FRAME_BYTES
    max_buffered_bytes: int = 256 * 1024 * 1024
