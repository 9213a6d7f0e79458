"""The command line of the load test: `python -m loadtest`."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType

from interfaces.command_line import INTERRUPTED, Parser
from interfaces.command_line import build_parser as build
from interfaces.engines import PRECISIONS
from interfaces.image_folder import SKIP_BAD_IMAGES, SKIP_BAD_IMAGES_HELP
from interfaces.kinds import (
    COUNT,
    COUNTS,
    DURATION,
    DURATION_OR_0,
    FOLDER_NAME,
    MILLISECONDS,
    MULTIPLE,
    NAMES,
    PORT_NUMBER,
    RATE,
    SIDE,
    SIZE,
    SWITCH,
    TEXT,
    TOLERANCE,
    WHOLE_NUMBER,
    one_of,
    some_of,
)
from interfaces.options import REQUIRED, Command, Option
from interfaces.peers import PEERS
from interfaces.service import PORT
from loadtest.errors import (
    BelowLimitError,
    LoadTestError,
    NoResultError,
    Terminated,
    UsageError,
)
from loadtest.load.arrivals import ARRIVALS
from loadtest.progress import Progress
from loadtest.servers.variants import BASELINE, PIPELINE, PIPELINE_GPU, VARIANTS
from loadtest.settings import AUTO, DECODER_TOLERANCE, MASTER_PORT, SCORE_TOLERANCE, WINDOW_S

_MODEL = "model of the zoo or ONNX file"
_KNOWN = (
    f"known: {', '.join(VARIANTS)}; '{PIPELINE}-4w' is {PIPELINE!r} with four server processes, "
    f"'{PIPELINE}-auto' with as many as suit the machine, and others have one"
)
_BY_PRECISION = ", ".join(f"{name} {most:g}" for name, most in SCORE_TOLERANCE.items())
_TOLERANCES = f"{_BY_PRECISION}, between decoders {DECODER_TOLERANCE:g}"
_REFERENCE = "interpreter that has torchpipe (this one)"
_PEERS = ", ".join(peer.name for peer in PEERS)
# Of a command that is to judge and could not, for which 1 is the verdict; and of one whose
# measurement is no result.
_NO_RESULT = 3
_TERMINATED = 143

_DESCRIBED = (
    # where
    Option("output_dir", TEXT, None, "folder for raw data, report and plots", "DIR"),
    Option("name", FOLDER_NAME, "local", "write to results/NAME"),
    Option("out", TEXT, REQUIRED, "folder for the folders of all measurements", "DIR"),
    Option("archive", TEXT, None, "pack the folders into this .tar.gz file, too", "FILE"),
    Option("folder", TEXT, REQUIRED, "a measured folder", "FOLDER", is_positional=True),
    Option(
        "folders",
        TEXT,
        REQUIRED,
        "a measured folder, or the word `diff` and two of them, the older one first",
        "FOLDER",
        is_positional=True,
        is_repeated=True,
    ),
    # the load
    Option("host", TEXT, "localhost", "where the server is"),
    Option("port", PORT_NUMBER, PORT, "the server's port"),
    Option("img_dir", TEXT, None, "folder of images (the photo set in .bench/images)", "DIR"),
    Option(SKIP_BAD_IMAGES, SWITCH, False, SKIP_BAD_IMAGES_HELP),
    Option("request_client", COUNT, 10, "closed-loop clients"),
    Option("rate", RATE, None, "requests a second of an open loop, in place of clients that wait"),
    Option("arrivals", one_of(tuple(ARRIVALS)), None, "when those of --rate come (poisson)"),
    Option(
        "request_batch", COUNT, 1, "images in a request; 1 calls infer_batch, else infer_images"
    ),
    Option("request_timeout_s", DURATION, 30.0, "longest wait for one reply"),
    Option("client_processes", COUNT, None, "processes that the clients share (what they need)"),
    Option(
        "processes",
        COUNT,
        None,
        "workers of Locust's distributed mode that are started here (with --worker: 1)",
    ),
    Option(
        "master",
        TEXT,
        None,
        f"wait for workers at this address of this machine, such as 0.0.0.0:{MASTER_PORT}, and "
        "spread the load over them",
        "HOST[:PORT]",
    ),
    Option("workers_expected", COUNT, None, "how many workers --master waits for"),
    Option(
        "worker",
        TEXT,
        None,
        "be a worker of the master there until it has ended; the load is the master's to say",
        "HOST[:PORT]",
    ),
    Option(
        "doubling_pairs",
        COUNT,
        None,
        "measure so many pairs of windows, with the client processes and with twice as many, which "
        "shows whether these are the limit",
    ),
    Option("warmup_s", DURATION_OR_0, 1.0, "load that is not measured"),
    Option("seed", WHOLE_NUMBER, 0, "decides what is random, such as the order of the images"),
    Option("total_number", COUNT, None, "requests that end the measured window"),
    Option(
        "duration_s",
        DURATION,
        5.0,
        f"length of every measured window (compare: {WINDOW_S:g}, less where rows are added)",
    ),
    Option("repeats", COUNT, 5, "windows of everything that is measured"),
    Option("requests", COUNT, 20_000, "requests to measure"),
    Option("payload_bytes", COUNT, 100_000, "size of a request's data"),
    # what is compared
    Option(
        "workloads",
        TEXT,
        None,
        f"{_MODEL}, or several (resnet50; on a CPU efficientnet_lite0, too)",
    ),
    Option("workload", TEXT, "resnet50", _MODEL, aliases=("model",)),
    Option("variants", TEXT, None, f"what is compared (what suits this machine); {_KNOWN}"),
    Option("clients", COUNTS, "1,2,4,10,20,40,64,128", "numbers of closed-loop clients to sweep"),
    Option("stages_s", DURATION_OR_0, 2.0, "window that tells where a request's time goes"),
    Option(
        "slo_ms",
        MILLISECONDS,
        15.0,
        "limit of the TP99, within which the most throughput is looked for",
        aliases=("tp99_limit_ms",),
    ),
    Option(
        "fail_below",
        MULTIPLE,
        None,
        "exit with 1 unless the pipeline's ratio to the baseline is at least that in all "
        "workloads, with its whole 95 % interval; 3 where it could not be measured",
    ),
    # the servers
    Option("engine", TEXT, AUTO, "the service's --engine"),
    Option(
        "precision", one_of((AUTO, *PRECISIONS)), AUTO, "of all; auto: fp16 on a GPU, fp32 on a CPU"
    ),
    Option("weights", TEXT, None, "the service's --weights, for a model of the zoo"),
    Option("mean", TEXT, None, "the service's --mean, in 0..255", "R,G,B"),
    Option("std", TEXT, None, "the service's --std, in 0..255", "R,G,B"),
    Option("layout", one_of(("nchw", "nhwc")), None, "the service's --layout"),
    Option("color", one_of(("rgb", "bgr")), None, "the service's --color"),
    Option("input_size", SIZE, None, "the service's --input-size"),
    Option("resize", SIDE, None, "the service's --resize; not for variants that decode on a GPU"),
    Option("crop", SIZE, None, "the service's --crop"),
    Option("output", TEXT, None, "the service's --output"),
    Option("output_activation", TEXT, None, "the service's --output-activation"),
    Option("calibration_images", TEXT, None, "the service's --calibration-images, for int8", "DIR"),
    Option("config", TEXT, None, "the pipeline's TOML file (the shipped one)"),
    Option("score_tolerance", TOLERANCE, None, f"of two scores for one image ({_TOLERANCES})"),
    Option("keep_servers", SWITCH, False, "start all servers at once, on ports from --port on"),
    Option("launch_prefix", TEXT, "", "words before what is measured, such as 'taskset -c 0,1'"),
    Option("ready_timeout_s", DURATION, 180.0, "longest wait for a server"),
    # peers
    Option("peers", NAMES, None, f"peers (all that run here); known: {_PEERS}"),
    Option("peers_dir", TEXT, ".peers", "folder of the peers' virtual environments", "DIR"),
    Option("precisions", some_of(PRECISIONS), None, "of each workload (fp32,int8; on a GPU fp16)"),
    Option("overload", MULTIPLE, 2.0, "open-loop load, as a multiple of each one's best; 0: none"),
    Option("deadline_ms", MILLISECONDS, 1000.0, "of a request under overload"),
    # a session on a GPU host
    Option("budget_s", DURATION, 540.0, "time in which everything must end"),
    Option(
        "sweep_variant", TEXT, None, f"what is swept ({PIPELINE_GPU} or, without GPU, {PIPELINE})"
    ),
    Option("workers", COUNTS, "1,2,4,6,8", "server processes to sweep, most important first"),
    Option("sweep_repeats", COUNT, 5, "windows per variant of the sweep and number of clients"),
    # the runtime
    Option("reference_python", TEXT, None, _REFERENCE, "PATH", ("anchor_python",)),
    Option("tries", COUNT, None, "the most rates or settings to try (what the time allows)"),
    Option("trials", COUNT, 10, "late requests in a window"),
    Option("wait_s", DURATION, 0.5, "how long waiting items' CPU time is measured"),
    Option("items", COUNT, 1_000_000, "how many items"),
    Option("threads", COUNT, 8, "threads that call", aliases=("clients",)),
    Option("instances", COUNT, 2, "instances of each node"),
    Option("sample_s", DURATION, 0.5, "time between two samples of memory"),
)
_CLIENTS = "port client_processes warmup_s seed"
_LOAD = f"img_dir {SKIP_BAD_IMAGES} request_batch request_timeout_s {_CLIENTS}"
_SPREAD = "master|worker workers_expected processes doubling_pairs"
# What a worker's own command line may say: where the master is, and what is of its own machine.
_OF_WORKERS = ("worker", "processes", "img_dir", SKIP_BAD_IMAGES)
_SERVERS = (
    "engine precision weights mean std layout color input_size resize crop output "
    "output_activation calibration_images config score_tolerance keep_servers launch_prefix "
    "ready_timeout_s"
)
_TITLES = {
    **dict.fromkeys(f"host {_LOAD} request_client rate arrivals total_number".split(), "load"),
    **dict.fromkeys(_SPREAD.replace("|", " ").split(), "client processes"),
    **dict.fromkeys(_SERVERS.split(), "servers"),
}
OPTIONS = tuple(replace(it, group=_TITLES.get(it.name, "")) for it in _DESCRIBED)
# What the models of peers cannot have of their own: their graphs are written without it.
_ONE_FOR_ALL = dict.fromkeys(
    (
        *("weights", "mean", "std", "layout", "color", "input_size", "resize", "crop"),
        *("output", "output_activation", "config"),
    )
)
COMMANDS = {
    "images": Command("make the photo set", "output_dir", {"output_dir": REQUIRED}),
    "run": Command(
        "load a server that already runs",
        f"host {_LOAD} request_client|rate arrivals total_number|duration_s {_SPREAD} output_dir",
        {"duration_s": 10.0},
    ),
    "capacity": Command(
        "find the highest rate of an open loop with a TP99 within a limit",
        f"host {_LOAD} request_client arrivals slo_ms duration_s budget_s tries output_dir",
        {"duration_s": 3.0, "warmup_s": 0.5, "budget_s": 120.0},
        {"rate": None, "total_number": None},
    ),
    "compare": Command(
        "compare the handlers on this machine",
        f"name|output_dir workloads variants {_LOAD} request_client duration_s repeats stages_s "
        f"fail_below {_SERVERS}",
        {"duration_s": None},
        {"total_number": None},
    ),
    "sweep": Command(
        "throughput and latency over many clients",
        f"name|output_dir workload variants clients {_LOAD} duration_s repeats slo_ms {_SERVERS}",
        {"name": "sweep", "variants": f"{BASELINE},{PIPELINE}", "repeats": 3},
        {"total_number": None},
    ),
    "tune": Command(
        "look for a better setting of the pipeline within a limit of the TP99",
        f"name|output_dir workload variants clients {_LOAD} duration_s slo_ms budget_s tries "
        f"repeats {_SERVERS.replace('keep_servers ', '')}",
        {
            "name": "tuned",
            "clients": "1,2,4,8,16,32,64",
            "duration_s": 1.5,
            "warmup_s": 0.3,
            "budget_s": 300.0,
            "repeats": 7,
            "ready_timeout_s": 60.0,
        },
        {"total_number": None},
    ),
    "gpu_session": Command(
        "all measurements of a GPU host in a given time",
        f"out budget_s archive workload variants sweep_variant workers clients {_LOAD} {_SERVERS} "
        "request_client duration_s repeats sweep_repeats stages_s slo_ms",
        {"duration_s": WINDOW_S, "stages_s": 3.0, "warmup_s": 0.5},
        {"total_number": None, "keep_servers": True},
    ),
    "peers": Command(
        "this service beside others that serve the same model",
        "name|output_dir workloads precisions variants peers peers_dir clients "
        f"img_dir {SKIP_BAD_IMAGES} "
        f"request_timeout_s {_CLIENTS} request_client duration_s repeats overload deadline_ms "
        "engine calibration_images score_tolerance launch_prefix ready_timeout_s",
        {"name": "peers", "clients": "1,2,10,32,100", "duration_s": 4.0},
        {"total_number": None, "request_batch": 1, "stages_s": 0.0, **_ONE_FOR_ALL},
    ),
    "install_peers": Command("make the peers' virtual environments", "peers peers_dir engine"),
    "null_request": Command(
        "measure the server's CPU time per request",
        f"requests payload_bytes {_CLIENTS} request_client ready_timeout_s launch_prefix "
        "output_dir",
    ),
    "batching": Command(
        "when batches leave the runtime, beside torchpipe, with a model that sleeps for 10 ms",
        "reference_python repeats duration_s trials wait_s output_dir",
        {"duration_s": 3.0, "output_dir": REQUIRED},
    ),
    "overhead": Command(
        "an item's way through nodes that do nothing, beside torchpipe",
        "reference_python repeats duration_s output_dir",
        {"duration_s": 3.0, "output_dir": REQUIRED},
    ),
    "integrity": Command(
        "no item lost, duplicated or swapped, and memory stays flat",
        "items threads instances sample_s output_dir",
        {"output_dir": REQUIRED},
    ),
    "report": Command("rebuild the reports from the raw files, or compare two of them", "folders"),
    "thin": Command("leave of latencies what the tables need", "folder"),
}


def build_parser() -> Parser:
    """The parser of `python -m loadtest`."""
    description = "Load the service, compare its handlers, measure the runtime, report."
    return build("loadtest", description, OPTIONS, COMMANDS, writes_underscores=True)


def main(arguments: Sequence[str] | None = None, typed: str | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line; None for this process's own.
        typed: what the user has typed, for the record; None for `python -m loadtest`.

    Returns:
        The exit code: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM. Of a
        command with --fail_below 1 is its verdict, and an error is 3; so is a run without a result,
        in which every request failed or a worker was lost.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser().parse(words)
    _check_worker(options)
    # Not at the top: --help and wrong usage are told without waiting for these.
    from loadtest.commands import COMMANDS as RUN

    return run_command("loadtest", words, options, RUN[options.command], typed)


def _check_worker(options: argparse.Namespace) -> None:
    """End a command line of a worker that says what its master says, with exit code 2."""
    if getattr(options, "worker", None) is None:
        return
    for described in (option for entry in COMMANDS["run"].entries(OPTIONS) for option in entry):
        name = described.name
        if name not in _OF_WORKERS and getattr(options, name) != described.default:
            build_parser().error(
                f"--{name} is for the master to say, which tells its workers; beside --worker "
                f"there may be --{', --'.join(_OF_WORKERS[1:])}"
            )


def run_command(
    program: str,
    words: Sequence[str],
    options: argparse.Namespace,
    command: Callable[[argparse.Namespace, str, Progress], None],
    typed: str | None = None,
) -> int:
    """Run `python -m PROGRAM WORDS...`, whose failures become a line each and an exit code."""
    from loadtest.records import machine

    line = machine.without_paths(typed or f"python -m {program} {shlex.join(words)}")
    progress = Progress()
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        command(options, str(line), progress)
    except BelowLimitError as error:
        return _fail(progress, f"{program}: {error}", 1)
    except UsageError as error:
        return _fail(progress, f"{program}: error: {error}", 2)
    except NoResultError as error:
        return _fail(progress, f"{program}: error: {error}", _NO_RESULT)
    except LoadTestError as error:
        is_judge = getattr(options, "fail_below", None) is not None
        return _fail(progress, f"{program}: error: {error}", _NO_RESULT if is_judge else 1)
    except KeyboardInterrupt:
        return _fail(progress, f"{program}: interrupted", INTERRUPTED)
    except Terminated:
        return _fail(progress, f"{program}: terminated", _TERMINATED)
    finally:
        progress.end_line()
    return 0


def _fail(progress: Progress, line: str, code: int) -> int:
    progress.end_line()
    print(" ".join(line.split()), file=sys.stderr)
    return code


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise Terminated
