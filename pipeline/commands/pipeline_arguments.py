"""What the command lines take."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from interfaces.command_line import Parser, build_parser
from interfaces.image_folder import SKIP_BAD_IMAGES, SKIP_BAD_IMAGES_HELP
from interfaces.kinds import COUNT, COUNTS, DURATION, NAMES, SIZE, SWITCH, TEXT, Kind, one_of
from interfaces.names import unknown_name
from interfaces.options import REQUIRED, Command, Option, options_of, picked
from service.handlers.handler_settings import HandlerSettings
from service.options.server_settings import ServerSettings

if TYPE_CHECKING:
    from engine.tensor_spec import TensorSpec

SHOW, CHECK, RUN, BENCH, THROUGHPUT = "show", "check", "run", "bench", "throughput"
EXPORT = "export"
OPERATORS = "operators"
ALL_ENGINES = "all"
MERMAID = "mermaid"

_OF_SERVICE = (*options_of(HandlerSettings), *options_of(ServerSettings))
OPTIONS = (
    *picked(_OF_SERVICE, "set", dest="set", default=[]),
    *picked(_OF_SERVICE, "backends engine labels"),
    *picked(_OF_SERVICE, "calibration_images", default_text=""),
    *picked(_OF_SERVICE, "max_image_pixels"),
    *picked(
        _OF_SERVICE,
        "max_decoded_bytes",
        help="memory of all images together that are being decoded or are decoded",
    ),
    Option(SKIP_BAD_IMAGES, SWITCH, False, SKIP_BAD_IMAGES_HELP),
    Option("file", TEXT, None, "the pipeline", "FILE.toml", is_positional=True),
    Option(
        "format",
        one_of(("text", MERMAID)),
        "text",
        "what is printed: text, or a Mermaid flowchart, which code hosts draw",
    ),
    Option(
        "output",
        TEXT,
        None,
        "draw into this file instead; needs matplotlib, as the extra 'bench' has it",
        "GRAPH.svg|GRAPH.png",
    ),
    Option(
        "photos",
        TEXT,
        None,
        "an image file, or a folder of images",
        "PHOTOS",
        is_positional=True,
        is_repeated=True,
    ),
    Option("node", TEXT, None, "where the images enter; needed where several nodes could"),
    Option("top", COUNT, 5, "classes to print", "K"),
    Option("repeat", COUNT, 1, "run each image N times; the times are medians"),
    Option(
        "profile",
        SWITCH,
        False,
        "also the time of each backend, for which each waits for its own work",
    ),
    Option("clients", COUNT, 10, "callers side by side"),
    Option("request_batch", COUNT, 1, "images a call"),
    Option("duration_s", DURATION, 10.0, "how long"),
    Option("images", COUNT, None, "how many images instead"),
    Option("json", SWITCH, False, "print JSON, an object a line"),
)


_OF_THROUGHPUT = (
    Option(
        "model", TEXT, None, "an ONNX file, or a packaged model", "MODEL.onnx", is_positional=True
    ),
    Option("batches", COUNTS, "1,2,4,8", "rows of a batch"),
    Option(
        "engine",
        NAMES,
        ALL_ENGINES,
        "engines; all: those that this host has and that run the precision",
    ),
    Option("precision", TEXT, None, "fp32, bf16, fp16 or int8", default_text="the engine's own"),
    Option(
        "instances",
        COUNT,
        None,
        "batches side by side",
        default_text="what suits the engine and the cores",
    ),
    Option(
        "size",
        SIZE,
        None,
        "of its images, for a file that leaves it open",
    ),
    Option("repeats", COUNT, 5, "windows of each"),
    Option("window_s", DURATION, 0.5, "length of one"),
)


def _input(text: str) -> TensorSpec:
    # torch takes seconds, for which the other commands' --help need not wait.
    import torch

    from engine.onnx_graph.tensors import TORCH_DTYPES
    from engine.tensor_spec import TensorSpec

    # NumPy, which makes up the rows, has no bfloat16.
    dtypes = {
        str(dtype).removeprefix("torch."): dtype
        for dtype in TORCH_DTYPES.values()
        if dtype != torch.bfloat16
    }
    name, _, rest = text.rpartition("=")
    dtype, _, shape = rest.rpartition(":")
    sizes = tuple(map(int, shape.split("x")))
    if min(sizes) < 1:
        raise ValueError(shape)
    if (dtype or _USUAL_DTYPE) not in dtypes:
        raise ArgumentTypeError(unknown_name("dtype", dtype, dtypes))
    return TensorSpec(name, dtypes[dtype or _USUAL_DTYPE], (None, *sizes))


_USUAL_DTYPE = "float32"
_OF_EXPORT = (
    *picked(_OF_SERVICE, "weights mean std", default_text=""),
    Option(
        "network",
        TEXT,
        None,
        "a function or class that gives a torch.nn.Module without arguments, such as "
        "mypkg.module:factory; it is imported from the current folder, too",
        "MODULE:NAME",
        is_positional=True,
    ),
    Option("output", TEXT, None, "the file to write", "MODEL.onnx", is_positional=True),
    Option(
        "input",
        Kind("shape such as 3x224x224, ids=128 or ids=int64:128", _input),
        REQUIRED,
        "one row of an input, without the batch, such as 3x224x224 or ids=int64:128; once for each "
        "input, in order",
        "[NAME=][DTYPE:]SHAPE",
        is_repeated=True,
    ),
)
_FILE = "file set backends"
IMAGE_LIMITS = "max_image_pixels max_decoded_bytes"
COMMANDS = {
    SHOW: Command(
        "show its graph, in the terminal or as a picture",
        f"{_FILE} format|output",
        description="Show the graph: its nodes with backends, instances, batch sizes and filters, "
        "and what each hands to which. Dashed lines of a picture are the jumps of a MapReduce, and "
        "what a map takes from further up. A file with mistakes is drawn, too: nodes that are not "
        "there, backends that are unknown and nodes with mistakes are marked. Exit code 0 if there "
        "are no mistakes, 1 if there are or the picture cannot be written, 2 if the command line "
        "is wrong or nothing can be drawn.",
    ),
    CHECK: Command(
        "find its mistakes, and list the settings that count",
        f"{_FILE} engine",
        description="Find the mistakes of a file without loading a model. Prints one line for "
        "each mistake, for each thing that it needs and this host lacks, and for each warning; "
        "where there are no mistakes, the effective settings of every node and where each comes "
        "from: its own table (node), a key above the tables (global), the parentheses in its "
        "expression (expression), or nowhere (default). Exit code 0 if it can be loaded on this "
        "host, 1 if it has mistakes, 2 if the command line is wrong, 3 if it has no mistakes but "
        "this host lacks a GPU, a package or instructions of the CPU.",
    ),
    RUN: Command(
        "run images through it",
        f"{_FILE} images {SKIP_BAD_IMAGES} {IMAGE_LIMITS} node engine labels top repeat profile "
        "json",
        description="Run images through the pipeline, one after the other, and print the result "
        "of each and the time in each node: for a classifier labels and scores, else type, shape "
        "and dtype. Exit code 0 if all went well, 1 if an image failed, 2 if the pipeline cannot "
        "be loaded.",
        private=[
            Option(
                "images",
                TEXT,
                None,
                "an image file, or a folder of images",
                "IMAGE",
                is_positional=True,
                is_repeated=True,
            )
        ],
    ),
    BENCH: Command(
        "put load on it, and see how fast it is and why",
        f"{_FILE} photos {SKIP_BAD_IMAGES} {IMAGE_LIMITS} clients request_batch "
        "duration_s|images node engine json",
        description="Put load on the pipeline in this process, without a server: clients that each "
        "send a request and wait for it, with images taken at random. Prints throughput, "
        "latencies with their 95 % intervals, and for every node how many images and batches "
        "it had, how long they waited and worked, how large the batches were and why they left. "
        "Needs the packages of the extra 'bench'. Exit code 0 if all images have a result, 1 if "
        "one failed, 2 if the pipeline cannot be loaded.",
    ),
    THROUGHPUT: Command(
        "measure an ONNX file by engine and size of a batch",
        "model batches engine precision instances size calibration_images "
        f"{SKIP_BAD_IMAGES} repeats window_s json",
        description="Measure how fast engines run a model, by the size of a batch, on made-up rows "
        "and without a pipeline. All engines are loaded side by side, with all sizes, and measured "
        "in turn, forwards and backwards. Needs the packages of the extra 'bench'. Exit code 0 if "
        "all were measured, 1 if an engine or a size failed, 2 if it cannot begin.",
        private=_OF_THROUGHPUT,
    ),
    EXPORT: Command(
        "export a torch network to ONNX",
        "network output input weights mean std labels",
        description="Export a torch network of your own to an ONNX file with a dynamic batch, and "
        "compare both on made-up rows, alone and in a batch. Nothing is written where they differ. "
        "Exit code 0 if the file is written, 1 if the network cannot be exported, 2 if the command "
        "line is wrong or there is no such network.",
        private=_OF_EXPORT,
    ),
    OPERATORS: Command(
        "list operators and filters, or tell more of one",
        "name markdown torchpipe backends",
        description="List the operators and filters that a file may name, and the keys of every "
        "node; with a NAME its keys, defaults and an example. Of a name of torchpipe's that is "
        "not here it says what to use instead, with exit code 1.",
        private=[
            Option("name", TEXT, "", "an operator, a filter or a key", "NAME", is_positional=True),
            Option(
                "markdown", SWITCH, False, "print all that is known of this package's, as Markdown"
            ),
            Option(
                "torchpipe",
                SWITCH,
                False,
                "print all names of torchpipe and what becomes of them here, as Markdown",
            ),
        ],
    ),
}


def command_parser() -> Parser:
    """The parser of `python -m pipeline`."""
    description = (
        "Check, draw, run and measure a pipeline's TOML file, and the models for it. Paths in the "
        "file are relative to the current folder."
    )
    return build_parser("pipeline", description, OPTIONS, COMMANDS)
