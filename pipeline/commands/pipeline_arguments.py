"""What the command lines take."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import NoReturn

from engine.names import unknown_name

SHOW, CHECK, RUN, BENCH, THROUGHPUT = "show", "check", "run", "bench", "throughput"
ALL_ENGINES = "all"
_LONGEST_S = 86_400.0
TEXT, MERMAID = "text", "mermaid"
COMMANDS = (SHOW, CHECK, RUN, BENCH, THROUGHPUT)


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line, with the command's name under `command`.

    A mistake is reported in one line with the closest name, and ends the process with exit code 2.
    """
    parser = _Parser(
        prog="python -m pipeline",
        description="Show, check or run a pipeline's TOML file. Paths in the file are relative to "
        "the current folder.",
        allow_abbrev=False,
    )
    # Not required here, so that a missing or unknown one is reported with the closest name.
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    parsers = {
        SHOW: _add_show(commands),
        CHECK: _add_check(commands),
        RUN: _add_run(commands),
        BENCH: _add_bench(commands),
        THROUGHPUT: _add_throughput(commands),
    }
    command = next((word for word in arguments if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        parser.error(unknown_name("command", command, COMMANDS))
    options, unknown = parser.parse_known_args(arguments)
    if options.command is None:
        parser.error(f"a command is missing: one of {', '.join(COMMANDS)}")
    if unknown:
        known = parsers[options.command].format_usage().replace("[", " ").replace("]", " ").split()
        names = {word for word in known if word.startswith("--")} | {"--help"}
        parsers[options.command].error(unknown_name("option", unknown[0].split("=")[0], names))
    return options


def _add_show(commands: argparse._SubParsersAction[_Parser]) -> _Parser:
    parser = commands.add_parser(
        SHOW,
        help="show its graph, in the terminal or as a picture",
        description="Show the graph: its nodes with backends, instances, batch sizes and filters, "
        "and what each hands to which. Dashed lines of a picture are the jumps of a MapReduce, and "
        "what a map takes from further up.",
        allow_abbrev=False,
    )
    _add_file(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--format",
        choices=(TEXT, MERMAID),
        default=TEXT,
        help="what is printed: text, or a Mermaid flowchart, which code hosts draw (default: text)",
    )
    where.add_argument(
        "--output",
        metavar="GRAPH.svg|GRAPH.png",
        help="draw into this file instead; needs matplotlib, as the extra 'bench' has it",
    )
    return parser


def _add_check(commands: argparse._SubParsersAction[_Parser]) -> _Parser:
    parser = commands.add_parser(
        CHECK,
        help="find its mistakes, and list the settings that count",
        description="Find the mistakes of a file without loading a model. Prints one line for "
        "each mistake, for each thing that it needs and this host lacks, and for each warning; "
        "where there are no mistakes, the effective settings of every node and where each comes "
        "from: its own table (node), a key above the tables (global), the parentheses in its "
        "expression (expression), or nowhere (default). Exit code 0 if it can be loaded on this "
        "host, 1 if it has mistakes, 2 if the command line is wrong, 3 if it has no mistakes but "
        "this host lacks a GPU, a package or instructions of the CPU.",
        allow_abbrev=False,
    )
    _add_file(parser)
    _add_engine(parser)
    return parser


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> _Parser:
    parser = commands.add_parser(
        RUN,
        help="run images through it",
        description="Run images through the pipeline, one after the other, and print the result "
        "of each and the time in each node: for a classifier labels and scores, else type, shape "
        "and dtype. Exit code 0 if all went well, 1 if an image failed, 2 if the pipeline cannot "
        "be loaded.",
        allow_abbrev=False,
    )
    _add_file(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="an image file")
    _add_loading(parser)
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="class names, one a line (default: ImageNet's, where the model has 1000 classes)",
    )
    parser.add_argument(
        "--top", type=_count, default=5, metavar="K", help="classes to print (default: 5)"
    )
    parser.add_argument(
        "--repeat",
        type=_count,
        default=1,
        metavar="N",
        help="run each image N times; the times are medians (default: 1)",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="also the time of each backend, for which each waits for its own work",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object an image")
    return parser


def _add_bench(commands: argparse._SubParsersAction[_Parser]) -> _Parser:
    parser = commands.add_parser(
        BENCH,
        help="put load on it, and see how fast it is and why",
        description="Put load on the pipeline in this process, without a server: clients that each "
        "send a request and wait for it, with images taken at random. Prints throughput, "
        "latencies with their 95 % intervals, and for every node how many images and batches "
        "it had, how long they waited and worked, how large the batches were and why they left. "
        "Needs the packages of the extra 'bench'. Exit code 0 if all images have a result, 1 if "
        "one failed, 2 if the pipeline cannot be loaded.",
        allow_abbrev=False,
    )
    _add_file(parser)
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTOS", help="an image file, or a folder of images"
    )
    parser.add_argument(
        "--clients", type=_count, default=10, metavar="N", help="callers side by side (default: 10)"
    )
    parser.add_argument(
        "--request-batch", type=_count, default=1, metavar="N", help="images a call (default: 1)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--duration-s", type=_seconds, default=10.0, metavar="S", help="how long (default: 10)"
    )
    length.add_argument("--images", type=_count, metavar="N", help="how many images instead")
    _add_loading(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_throughput(commands: argparse._SubParsersAction[_Parser]) -> _Parser:
    parser = commands.add_parser(
        THROUGHPUT,
        help="measure an ONNX file by engine and size of a batch",
        description="Measure how fast engines run a model, by the size of a batch, on made-up rows "
        "and without a pipeline. All engines are loaded side by side, with all sizes, and measured "
        "in turn, forwards and backwards. Needs the packages of the extra 'bench'. Exit code 0 if "
        "all were measured, 1 if an engine or a size failed, 2 if it cannot begin.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL.onnx", help="an ONNX file, or a packaged model")
    parser.add_argument(
        "--batches",
        type=_counts,
        default=(1, 2, 4, 8),
        metavar="N,N,...",
        help="rows of a batch (default: 1,2,4,8)",
    )
    parser.add_argument(
        "--engine",
        type=_names,
        default=(ALL_ENGINES,),
        metavar="NAME,...",
        help="engines (default: all, those that this host has and that run the precision)",
    )
    parser.add_argument(
        "--precision", metavar="NAME", help="fp32, bf16, fp16 or int8 (default: the engine's own)"
    )
    parser.add_argument(
        "--instances",
        type=_count,
        metavar="N",
        help="batches side by side (default: what suits the engine and the cores)",
    )
    parser.add_argument(
        "--size",
        type=_size,
        metavar="HEIGHTxWIDTH",
        help="of its images in pixels, for a file that leaves it open",
    )
    parser.add_argument(
        "--calibration-images", metavar="DIR", help="folder of images, for --precision int8"
    )
    parser.add_argument(
        "--repeats", type=_count, default=5, metavar="N", help="windows of each (default: 5)"
    )
    parser.add_argument(
        "--window-s", type=_seconds, default=0.5, metavar="S", help="length of one (default: 0.5)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_loading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--node", help="where the images enter; needed where several nodes could")
    _add_engine(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", default="auto", metavar="NAME", help="what runs the model (default: auto)"
    )


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.toml", help="the pipeline")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[NODE.]KEY=VALUE",
        help="change one value of the file; may be given more than once",
    )
    parser.add_argument(
        "--backends",
        metavar="FILE.py",
        help="Python file that registers backends and filters, executed first",
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"takes a whole number of at least 1, got {text!r}")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def _counts(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_count(part.strip()) for part in text.split(",")))


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (_count(part) for part in text.split("x"))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"takes a height and a width in pixels, such as 224x224, got {text!r}"
        ) from None
    return height, width


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= _LONGEST_S:
        raise argparse.ArgumentTypeError(
            f"takes seconds, more than 0 and at most {_LONGEST_S:g}, got {text!r}"
        )
    return value
