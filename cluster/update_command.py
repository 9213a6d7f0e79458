"""The command line: `python -m cluster update`, and status.

Exit codes: 0 all went well; 1 the update was rolled back; 2 the command line cannot work; 3 the
cluster cannot be reached, or no server runs there; 4 the update was not rolled back to its end, and
replicas of both releases may be there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

from cluster.canary import CheckSet, read_labels
from cluster.release import Release
from cluster.rolling_update import HalfUpdatedError, NotUpdatedError, UnreachableError
from interfaces.command_line import build_parser
from interfaces.extras import install_command
from interfaces.image_folder import SKIP_BAD_IMAGES, SKIP_BAD_IMAGES_HELP
from interfaces.kinds import DURATION, FILE, SWITCH, TEXT, Bounds, Kind
from interfaces.options import REQUIRED, Command, Option, dashed, options_of
from service.client.chosen_images import UnusableInputError, chosen_images
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.options.server_settings import ServerSettings
from service.options.validation import handler_settings

UPDATE, STATUS = "update", "status"
ROLLED_BACK, REFUSED, UNREACHABLE, HALF_UPDATED = 1, 2, 3, 4
_SKIP_BAD = "canary_" + SKIP_BAD_IMAGES

_OWN = (
    Option("cluster", TEXT, REQUIRED, "the Ray cluster that has the replicas", "ADDRESS"),
    Option(
        "canary_images",
        TEXT,
        None,
        "folder of images, or one image, that the new release answers before any client's; without "
        "it, that it is ready is enough",
        "FOLDER",
    ),
    Option(
        "canary_labels",
        FILE,
        None,
        "CSV file of image name and label: the best label has to be this one",
        "FILE.csv",
        default_text="the best label has to be that of the running release",
    ),
    Option(
        "canary_share",
        Kind("number", float, Bounds(0, 1), metavar="X"),
        0.95,
        "least share of --canary-images of which it is",
    ),
    Option(_SKIP_BAD, SWITCH, False, "of --canary-images, " + SKIP_BAD_IMAGES_HELP),
    Option(
        "no_surge",
        SWITCH,
        False,
        "end an old replica before its successor starts, where there is no room for one more",
    ),
    Option("ready_timeout_s", DURATION, 600.0, "longest wait for a replica to load, or to end"),
    Option("json", SWITCH, False, "print one JSON object"),
)


def _of_server() -> Iterator[Option]:
    """What an update may change: as the server's options, where none is given it stays."""
    labels = (one for one in options_of(ServerSettings) if one.name == "labels")
    for described in (*options_of(HandlerSettings), *labels):
        yield replace(described, default=None, default_text="as it is", refused={})


OPTIONS = (*_OWN, *_of_server())
_CHANGES = " ".join(one.name for one in _of_server())
COMMANDS = {
    UPDATE: Command(
        "bring a new model or configuration, replica by replica",
        "cluster canary_images canary_labels canary_share canary_skip_bad_images no_surge "
        f"ready_timeout_s {_CHANGES}",
        description="Replace the replicas of a running server by replicas of other settings, one "
        "after the other, while it serves. The new release is tried on a replica of which no "
        "client hears; where it does not become ready, or fails --canary-images, all is as before.",
    ),
    STATUS: Command("show releases and replicas", "cluster json"),
}
_EXIT_CODES = (
    "Exit codes: 0 all went well, 1 the update was rolled back, 2 the command line cannot work, "
    "3 the cluster cannot be reached, or no server runs there, 4 the update was not rolled back to "
    "its end: the line says what serves, and the next update rolls back first."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code, as the module says."""
    description = "Look after a server whose replicas run on a Ray cluster."
    parser = build_parser("cluster", description, OPTIONS, COMMANDS, epilog=_EXIT_CODES)
    options = parser.parse(arguments)
    try:
        # By name, since they know Ray, and the table of commands must not.
        run = resolve_name(f"cluster.administration:{options.command}")
    except ModuleNotFoundError as error:
        needed = f"{error.name!r}: {install_command('cluster')}"
        return _fail(f"cluster {options.command} needs the package {needed}", REFUSED)
    try:
        if options.command == STATUS:
            return _status(run(options.cluster), as_json=options.json)
        check_set = _check_set(options)
        run(
            options.cluster,
            lambda old: changed(old, options),
            check_set,
            with_surge=not options.no_surge,
            ready_timeout_s=options.ready_timeout_s,
            tell=_tell,
        )
    except (ConfigurationError, UnusableInputError) as error:
        return _fail(str(error), REFUSED)
    except UnreachableError as error:
        return _fail(str(error), UNREACHABLE)
    except NotUpdatedError as error:
        return _fail(str(error), ROLLED_BACK)
    except HalfUpdatedError as error:
        return _fail(str(error), HALF_UPDATED)
    except KeyboardInterrupt:
        return _fail("interrupted; no update was begun", ROLLED_BACK)
    return 0


def changed(old: Release, options: argparse.Namespace) -> Release:
    """The release with the options that were given; all others are those of the old one.

    Raises:
        ConfigurationError: they cannot work, or change nothing.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    wanted = argparse.Namespace(handler=old.handler)
    for described in options_of(HandlerSettings):
        dest = described.dest
        before = getattr(old.for_handler, dest)
        if described.is_repeated and dest in given:
            setattr(wanted, dest, {**before, **dict(given[dest])})
        elif dest in given:
            setattr(wanted, dest, given[dest])
        elif before not in (described.default, {}, ()):
            setattr(wanted, dest, before)
    for_handler = replace(
        handler_settings(wanted),
        hang_timeout_s=old.for_handler.hang_timeout_s,
        max_frame_bytes=old.for_handler.max_frame_bytes,
        max_buffered_bytes=old.for_handler.max_buffered_bytes,
    )
    settings = replace(old.settings, labels=given.get("labels", old.settings.labels))
    words = [
        f"--{one.name.replace('_', '-')} {given[one.dest]} (cluster update)"
        for one in _of_server()
        if one.dest in given
    ]
    if not words:
        raise ConfigurationError(
            "nothing is to change; give what does, such as --model or --config (see --help)"
        )
    told = ", ".join(filter(None, [old.options_given, *words]))
    new = Release.of(old.handler, for_handler, settings, old.log, told)
    if new.name == old.name:
        raise ConfigurationError(
            "the replicas run with these settings already; a file that has changed needs another "
            "name, so that replicas of both releases can start during the update"
        )
    return new


def _check_set(options: argparse.Namespace) -> CheckSet | None:
    if options.canary_images is None:
        if options.canary_labels is not None:
            raise ConfigurationError("--canary-labels goes with --canary-images; give both")
        return None
    images = [
        (Path(name).name, image if isinstance(image, bytes) else image.read_bytes())
        for name, image in chosen_images(
            [options.canary_images],
            skip_bad=options.canary_skip_bad_images,
            tell=_tell,
            option=dashed(_SKIP_BAD),
        )
    ]
    labels = None
    if options.canary_labels is not None:
        labels = read_labels(Path(options.canary_labels), [name for name, _ in images])
    return CheckSet(images, labels, options.canary_share)


def _status(rows: Sequence[dict[str, object]], *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"replicas": rows}, ensure_ascii=False) + "\n")
        return 0
    columns = [*rows[0]] if rows else []
    table = [columns, *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
    return 0


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _fail(line: str, code: int) -> int:
    sys.stderr.write(f"error: {' '.join(line.split())}\n")
    return code
