"""The flags of the load test. Their spelling follows torchpipe's published test tool."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from loadtest.robustness.arguments import add_chaos, add_fuzz, add_soak
from loadtest.variants import PIPELINE, PIPELINE_GPU, VARIANTS

AUTO = "auto"
PRECISIONS = (AUTO, "fp32", "bf16", "fp16", "int8")


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return value

    # argparse names the type in its message for text that is no number.
    parse.__name__ = "whole number"
    return parse


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 86400 s, got {text}")
    return value


def _seconds_or_zero(text: str) -> float:
    return 0.0 if float(text) == 0 else _seconds(text)


def _port(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"must be 1 to 65535, got {text}")
    return value


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text}")
    return value


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0 ms, got {text}")
    return value


def _counts(text: str) -> list[int]:
    """Whole numbers of at least 1, all different."""
    values = [int(part) for part in text.split(",")]
    if min(values) < 1 or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(
            f"takes different numbers of at least 1 with commas between, got {text!r}"
        )
    return values


def _folder_name(text: str) -> str:
    if not text or text in {".", ".."} or "/" in text:
        raise argparse.ArgumentTypeError(f"must be a plain folder name, got {text!r}")
    return text


for _parse, _name in (
    (_seconds, "number of seconds"),
    (_seconds_or_zero, "number of seconds"),
    (_port, "port"),
    (_tolerance, "tolerance"),
    (_milliseconds, "number of milliseconds"),
    (_counts, "list of whole numbers"),
):
    _parse.__name__ = _name


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m loadtest`."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest", description="Load the service, compare its handlers, report."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_images(commands.add_parser("images", help="make the deterministic photo set"))
    _add_run(commands.add_parser("run", help="load a server that already runs"))
    _add_compare(commands.add_parser("compare", help="compare the handlers on this machine"))
    _add_sweep(commands.add_parser("sweep", help="throughput and latency over many clients"))
    _add_gpu_session(
        commands.add_parser("gpu_session", help="all measurements of a GPU host in a given time")
    )
    _add_report(commands.add_parser("report", help="rebuild report and plots from the raw files"))
    _add_null_request(
        commands.add_parser("null_request", help="measure the server's CPU time per request")
    )
    for name, text, add in (
        ("fuzz", "mutated requests and images against a live server", add_fuzz),
        ("chaos", "dying clients, workers and engines, bad networks, overload", add_chaos),
        ("soak", "a long mixed load: throughput, memory and descriptors must stay", add_soak),
    ):
        _add_robustness(commands.add_parser(name, help=text), name, add)
    for command in commands.choices.values():
        command.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output_dir", required=True, help="folder to write the photographs to")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="localhost", help="where the server is")
    _add_load(parser)
    _add_request_client(parser)
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--total_number", type=_at_least(1), help="requests that end the measured window"
    )
    length.add_argument(
        "--duration_s", type=_seconds, default=10.0, help="length of the measured window"
    )
    parser.add_argument("--output_dir", help="folder for raw data, report and plots")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    _add_place(parser, "local")
    parser.add_argument(
        "--workloads",
        help="models of the zoo or ONNX files, separated by commas; where unset resnet50 and, "
        "without a GPU, efficientnet_lite0",
    )
    _add_variants(parser, None, "where unset what suits this machine")
    _add_servers(parser)
    _add_load(parser)
    _add_request_client(parser)
    parser.add_argument(
        "--duration_s", type=_seconds, default=6.5, help="length of every measured window"
    )
    parser.add_argument(
        "--repeats", type=_at_least(1), default=5, help="windows per workload and variant"
    )
    parser.add_argument(
        "--stages_s",
        type=_seconds_or_zero,
        default=2.0,
        help="length of the window that tells where a request's time goes; 0 for none",
    )
    _add_server_start(parser)
    parser.set_defaults(total_number=None)


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    _add_place(parser, "sweep")
    parser.add_argument("--workload", default="resnet50", help="a model of the zoo or ONNX file")
    _add_variants(parser, PIPELINE, "lines of the plot")
    parser.add_argument(
        "--clients",
        type=_counts,
        default="1,2,4,10,20,40,64,128",
        help="numbers of closed-loop clients",
    )
    _add_servers(parser)
    _add_load(parser)
    parser.add_argument(
        "--duration_s", type=_seconds, default=5.0, help="length of every measured window"
    )
    parser.add_argument(
        "--repeats", type=_at_least(1), default=3, help="windows per variant and number of clients"
    )
    parser.add_argument(
        "--tp99_limit_ms",
        type=_milliseconds,
        default=15.0,
        help="the report names the most throughput with a TP99 within it",
    )
    _add_server_start(parser)


def _add_gpu_session(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder for the folders of all measurements")
    parser.add_argument(
        "--budget_s", type=_seconds, default=540.0, help="time in which everything must end"
    )
    parser.add_argument("--archive", help="pack the folders into this .tar.gz file, too")
    parser.add_argument("--workload", default="resnet50", help="a model of the zoo or ONNX file")
    parser.add_argument(
        "--variants",
        help="what is compared, separated by commas; where unset what suits this machine",
    )
    parser.add_argument(
        "--sweep_variant",
        help=f"what the sweep runs with several workers; where unset {PIPELINE_GPU!r} and, "
        f"without a GPU, {PIPELINE!r}",
    )
    parser.add_argument(
        "--workers",
        type=_counts,
        default="1,2,4,6,8",
        help="server processes of the sweep's lines, the most important first",
    )
    parser.add_argument(
        "--clients",
        type=_counts,
        default="1,2,4,10,20,40,64,128",
        help="numbers of closed-loop clients of the sweep",
    )
    _add_servers(parser)
    _add_load(parser)
    _add_request_client(parser)
    parser.add_argument(
        "--duration_s", type=_seconds, default=6.5, help="length of the longest measured window"
    )
    parser.add_argument(
        "--repeats", type=_at_least(1), default=5, help="windows per variant of the comparison"
    )
    parser.add_argument(
        "--sweep_repeats",
        type=_at_least(1),
        default=5,
        help="windows per variant of the sweep and number of clients",
    )
    parser.add_argument(
        "--stages_s", type=_seconds_or_zero, default=3.0, help="length of the window of stage times"
    )
    parser.add_argument("--tp99_limit_ms", type=_milliseconds, default=15.0, help="as in sweep")
    _add_server_start(parser)
    parser.set_defaults(total_number=None, keep_servers=True, warmup_s=0.5)


def _add_place(parser: argparse.ArgumentParser, name: str) -> None:
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--name", type=_folder_name, default=name, help="write to results/NAME")
    place.add_argument("--output_dir", help="write to this folder instead")


def _add_variants(parser: argparse.ArgumentParser, default: str | None, note: str) -> None:
    parser.add_argument(
        "--variants",
        default=default,
        help=f"rows, separated by commas ({note}); known: {', '.join(VARIANTS)}; "
        f"'{PIPELINE}-4w' is {PIPELINE!r} with four server processes",
    )


def _add_servers(parser: argparse.ArgumentParser) -> None:
    """What the servers of a comparison have in common."""
    parser.add_argument("--engine", default=AUTO, help="the service's --engine")
    parser.add_argument(
        "--precision",
        default=AUTO,
        choices=PRECISIONS,
        help="what all run; auto is fp16 on a GPU and fp32 on a CPU",
    )
    parser.add_argument("--weights", help="the service's --weights, for a model of the zoo")
    parser.add_argument("--mean", metavar="R,G,B", help="the service's --mean, in 0..255")
    parser.add_argument("--std", metavar="R,G,B", help="the service's --std, in 0..255")
    parser.add_argument(
        "--calibration_images", metavar="DIR", help="the service's --calibration-images, for int8"
    )
    parser.add_argument("--config", help="the pipeline's TOML file instead of the shipped one")
    parser.add_argument(
        "--score_tolerance",
        type=_tolerance,
        help="largest difference of two variants' scores for one image; where unset 0.001 for "
        "fp32, 0.01 for fp16, 0.02 for bf16, 0.05 for int8, and 0.1 between decoders",
    )
    parser.add_argument(
        "--keep_servers",
        action="store_true",
        help="start every server once, all at the same time, on ports from --port on",
    )


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="a measured folder")


def _add_null_request(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=_at_least(1), default=20_000, help="requests to measure")
    parser.add_argument(
        "--payload_bytes", type=_at_least(1), default=100_000, help="size of a request's data"
    )
    _add_request_client(parser)
    _add_clients(parser)
    _add_server_start(parser)
    parser.add_argument("--output_dir", help="folder for raw data, report and plots")


def _add_robustness(
    parser: argparse.ArgumentParser,
    name: str,
    add: Callable[[argparse.ArgumentParser, Callable[[str], int], Callable[[str], float]], None],
) -> None:
    add(parser, _at_least(1), _seconds)
    parser.add_argument("--port", type=_port, default=8095, help="for the server that is started")
    parser.add_argument("--seed", type=int, default=0, help="the same one repeats a run")
    parser.add_argument("--output_dir", help=f"where unset results/local-{name}")


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--img_dir", help="folder of images; where unset the photo set in .bench/images"
    )
    parser.add_argument(
        "--request_batch",
        type=_at_least(1),
        default=1,
        help="images in a request: 1 calls infer_batch, more call infer_images",
    )
    parser.add_argument(
        "--request_timeout_s", type=_seconds, default=30.0, help="longest wait for one reply"
    )
    _add_clients(parser)


def _add_request_client(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--request_client", type=_at_least(1), default=10, help="closed-loop clients"
    )


def _add_clients(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=_port, default=8095, help="the server's port")
    parser.add_argument(
        "--client_processes",
        type=_at_least(1),
        help="processes that the clients share; where unset as many as they need",
    )
    parser.add_argument(
        "--warmup_s", type=_seconds_or_zero, default=1.0, help="load that is not measured"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides the order of the images")


def _add_server_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--launch_prefix",
        default="",
        help="words before every command that is measured, such as 'taskset -c 0,1'",
    )
    parser.add_argument(
        "--ready_timeout_s", type=_seconds, default=180.0, help="longest wait for a server"
    )
