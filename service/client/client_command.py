"""The command line: `python -m service.client classify IMAGE...`, and ping, health, info and top.

The image `-` is what standard input gives.

Exit codes: 0 all went well; 1 some image failed, or the server is not ready; 2 the command line
cannot work; 3 the server could not be reached, or it refused a call.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict

from interfaces.command_line import BROKEN_PIPE, INTERRUPTED, build_parser, drop_stdout
from interfaces.extras import install_command
from interfaces.image_folder import SKIP_BAD_IMAGES, SKIP_BAD_IMAGES_HELP
from interfaces.kinds import COUNT, DURATION, FILE, SWITCH, TEXT, WHOLE_NUMBER, Kind
from interfaces.options import Command, Option
from interfaces.service import PORT
from service.client.chosen_images import UnusableInputError, chosen_images
from service.client.client import Client
from service.client.errors import ClientError
from service.client.images import calls_of_bounded_size
from service.client.results import Classification

_IMAGES_PER_CALL = 32
# Columns for values that are below each other.
_NARROWEST = 12
_BYTES_PER_CALL = 8_000_000

OPTIONS = (
    Option("host", TEXT, "127.0.0.1", "the server"),
    Option("port", WHOLE_NUMBER, PORT, "its port"),
    Option(
        "timeout_s",
        Kind("number of seconds", float, metavar="S"),
        30.0,
        "longest time of a call, retries included",
    ),
    Option("tls_ca", FILE, None, "authorities that the server's certificate may come from"),
    Option("tls_cert", FILE, None, "certificate of this client"),
    Option("tls_key", FILE, None, "its private key"),
    Option(
        "tls_server_name",
        TEXT,
        None,
        "name in the server's certificate",
        "NAME",
        default_text="host",
    ),
    Option("json", SWITCH, False, "JSON, one line a result"),
    Option(
        "images",
        TEXT,
        None,
        "image file, a folder of them, or - for one on standard input",
        "IMAGE",
        is_positional=True,
        is_repeated=True,
    ),
    Option("top_k", COUNT, 1, "classes to name; all of them where there are fewer"),
    Option(SKIP_BAD_IMAGES, SWITCH, False, SKIP_BAD_IMAGES_HELP),
    Option("stage_times", SWITCH, False, "how long each stage of the server took"),
    Option("interval_s", DURATION, 2.0, "from one picture to the next"),
    Option("once", SWITCH, False, "end after the first picture"),
)
_SERVER = "host port timeout_s tls_ca tls_cert tls_key tls_server_name json"
COMMANDS = {
    "classify": Command(
        "say what is in images", f"images top_k {SKIP_BAD_IMAGES} stage_times {_SERVER}"
    ),
    "ping": Command("see whether a server answers", _SERVER),
    "health": Command("see whether it can take requests", _SERVER),
    "info": Command("see which model and engine it runs", _SERVER),
    "top": Command("watch what the server and all of its workers do", f"interval_s once {_SERVER}"),
}
_EXIT_CODES = (
    "Exit codes: 0 all went well, 1 some image failed or the server is not ready, 2 the command "
    "line cannot work, 3 the server could not be reached or refused a call."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command line; None for this process's own.

    Returns:
        The exit code, as the module says.
    """
    parser = build_parser(
        "service.client", "Ask a thriftpipe server.", OPTIONS, COMMANDS, epilog=_EXIT_CODES
    )
    options = parser.parse(arguments)
    try:
        client = Client(
            options.host,
            options.port,
            call_timeout_s=options.timeout_s,
            tls_ca=options.tls_ca,
            tls_cert=options.tls_cert,
            tls_key=options.tls_key,
            tls_server_name=options.tls_server_name,
        )
    except ValueError as error:
        return _fail(error, 2)
    try:
        with client:
            code = _RUN[options.command](client, options)
        sys.stdout.flush()
    except ClientError as error:
        return _fail(error, 3)
    except BrokenPipeError:
        drop_stdout()
        return BROKEN_PIPE
    except OSError as error:
        # Those of files and connections are told by others of these.
        drop_stdout()
        return _fail(f"the output cannot be written: {error.strerror}", 1)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _classify(client: Client, options: argparse.Namespace) -> int:
    try:
        images = chosen_images(options.images, skip_bad=options.skip_bad_images, tell=_tell)
    except UnusableInputError as error:
        return _fail(error, 2)
    failed = False
    sizes_bytes = [
        len(image) if isinstance(image, bytes) else image.stat().st_size for _, image in images
    ]
    width = max(len(name) for name, _ in images)
    for call in calls_of_bounded_size(sizes_bytes, _IMAGES_PER_CALL, _BYTES_PER_CALL):
        some = images[call.start : call.stop]
        outcomes = client.classify_batch(
            [image for _, image in some], top_k=options.top_k, with_stage_times=options.stage_times
        )
        for (name, _), outcome in zip(some, outcomes, strict=True):
            if isinstance(outcome, ClientError):
                failed = _report(name, str(outcome), options.json)
            elif options.json:
                _print_json({"image": name, **asdict(outcome)})
            else:
                _print_rows(name, outcome, width)
    _tell_note(client)
    return 1 if failed else 0


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _tell_note(client: Client) -> None:
    """Say beside the results what the server says of its model."""
    try:
        note = client.server_info().note
    except ClientError:
        return  # the results are there, and a server may lack this method
    if note:
        sys.stderr.write(f"note: {_one_line(note)}\n")


def _print_rows(name: str, outcome: Classification, width: int) -> None:
    for entry in outcome.top_k:
        sys.stdout.write(f"{name:{width}}  {entry.score:.4f}  {entry.label}\n")
    if outcome.stage_times_ms:
        told = ", ".join(f"{stage} {ms:.1f}" for stage, ms in outcome.stage_times_ms.items())
        sys.stdout.write(f"{name:{width}}  ms: {told}\n")


def _print_json(values: dict[str, object]) -> None:
    sys.stdout.write(f"{json.dumps(values, ensure_ascii=False)}\n")


def _report(name: str, reason: str, as_json: bool) -> bool:
    """Tell why an image has no result; True, for that one has failed."""
    line = _one_line(reason)
    if as_json:
        _print_json({"image": name, "error": line})
    sys.stderr.write(f"error: {name}: {line}\n")
    return True


def _ping(client: Client, options: argparse.Namespace) -> int:
    client.ping()
    if options.json:
        _print_json({"answers": True})
    else:
        sys.stdout.write(f"{options.host}:{options.port} answers\n")
    return 0


def _health(client: Client, options: argparse.Namespace) -> int:
    health = client.health()
    if options.json:
        _print_json(asdict(health))
    else:
        sys.stdout.write("ready\n" if health.ready else f"not ready: {_one_line(health.reason)}\n")
    return 0 if health.ready else 1


def _info(client: Client, options: argparse.Namespace) -> int:
    info = asdict(client.server_info())
    if options.json:
        _print_json(info)
        return 0
    facts = {name: value for name, value in info.items() if not isinstance(value, dict)}
    _print_facts({name: value for name, value in facts.items() if value is not None}, "")
    for name, value in info.items():
        if isinstance(value, dict):
            sys.stdout.write(f"{name}\n")
            _print_facts(dict(sorted(value.items())), "  ")
    return 0


def _print_facts(facts: Mapping[str, object], indent: str) -> None:
    """A line for each, with the values below each other; a terminal has long ones in several."""
    width = max(map(len, facts), default=0)
    columns = shutil.get_terminal_size().columns
    room = columns - len(indent) - width - 2
    for name, value in facts.items():
        text = _one_line(str(value))
        lines = [f"{indent}{name:{width}}  {text}"]
        if sys.stdout.isatty():
            is_aligned = room >= _NARROWEST
            # Words stay whole, so that a path or a checksum can be copied.
            lines = textwrap.wrap(
                text,
                columns,
                initial_indent=f"{indent}{name:{width if is_aligned else 0}}  ",
                subsequent_indent=" " * (columns - room if is_aligned else len(indent) + 2),
                break_long_words=False,
                break_on_hyphens=False,
            ) or [f"{indent}{name}"]
        sys.stdout.writelines(f"{line.rstrip()}\n" for line in lines)


def _top(client: Client, options: argparse.Namespace) -> int:
    try:
        from service.client.top import watch
    except ImportError as error:
        return _fail(f"top needs the package rich ({error}): {install_command('cli')}", 2)
    # Its usual end.
    with suppress(KeyboardInterrupt):
        watch(
            client.stats,
            f"{options.host}:{options.port}",
            sys.stdout,
            interval_s=options.interval_s,
            once=options.once,
            as_json=options.json,
        )
    return 0


_RUN: Mapping[str, Callable[[Client, argparse.Namespace], int]] = {
    "classify": _classify,
    "ping": _ping,
    "health": _health,
    "info": _info,
    "top": _top,
}


def _fail(error: Exception | str, code: int) -> int:
    sys.stderr.write(f"error: {_one_line(str(error))}\n")
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split())
