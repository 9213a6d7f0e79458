"""The settings of handlers, and the options of the command line that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

_NULL_HAS_NO_MODEL = {"null": "the null handler runs no model"}
_OF_PIPELINE = {
    "baseline": "the baseline has no TOML file and no nodes; it is for --handler pipeline"
}


def _option(
    default: Any,
    help: str,
    kind: Kind = TEXT,
    refused: Mapping[str, str] | None = None,
    **details: Any,
) -> Any:
    refused = {**_NULL_HAS_NO_MODEL, **(refused or {})}
    return option(default, help, kind, group="model", refused=refused, **details)


@dataclass(frozen=True)
class HandlerSettings:
    """The settings from which a handler builds itself; most are options of the command line.

    Attributes:
        overrides: "KEY" or "NODE.KEY" to value, which replace those of the TOML file.
        shared_folder: a folder that the workers of one server have in common and no other user can
            enter, or None where one process is the server.
        hang_timeout_s: how long a process of the server may give no sign of life before it is
            replaced; 0 for no limit.
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
        None, "subtracted from each channel, in 0..255", CHANNELS, default_text="the model's own"
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
        "at the first start on a CPU, measure which batches are fastest, and have an instance of "
        "the engine for each core, where the configuration leaves it open; it takes some 3 s and "
        "is kept",
        one_of(("auto", "off")),
        refused={
            "baseline": "the baseline has no instances, and --max-batch-size sets its batches; it "
            "is for --handler pipeline"
        },
    )
    lock: bool = _option(
        True,
        "run the baseline without its lock, where the engine allows it",
        OFF_SWITCH,
        name="no_lock",
        refused={"pipeline": "the pipeline takes no lock; it is for --handler baseline"},
    )
    max_batch_size: int = _option(
        4,
        "rows of the largest batch of the baseline's engine",
        COUNT,
        refused={
            "pipeline": "the pipeline's TOML file sets its batches; use --set NODE.max=8x3x224x224"
        },
    )
    decode: str = _option(
        "auto",
        "where the pipeline decodes images: chooses the shipped graph; auto: on a GPU that runs "
        "the model and has a JPEG engine, if thriftpipe[gpu] is installed, else on the CPU",
        one_of(("auto", "cpu", "gpu")),
        refused={"baseline": "the baseline decodes on the CPU; it is for --handler pipeline"},
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
