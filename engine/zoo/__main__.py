"""`python -m engine.zoo`: list the models that have a name, or export one to a file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.cache.atomic_file import write_atomically
from engine.errors import EngineError
from engine.zoo.store import ZOO, exported_file
from interfaces.command_line import build_parser
from interfaces.kinds import FILE, TEXT
from interfaces.names import unknown_name
from interfaces.options import Command, Option

_OPTIONS = (
    Option("name", TEXT, None, f"one of: {', '.join(ZOO)}", is_positional=True),
    Option("weights", FILE, None, "state-dict file", default_text="the model's own weights"),
    Option("output", FILE, None, "file to write", default_text="in the cache folder"),
)
_COMMANDS = {
    "list": Command("show the models", ""),
    "export": Command("export a model and print the file's path", "name weights output"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    description = "Models that come with a name."
    options = build_parser("engine.zoo", description, _OPTIONS, _COMMANDS).parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.command == "list":
            for name, model in ZOO.items():
                sys.stdout.write(f"{name:20} {model.summary}\n")
        else:
            sys.stdout.write(f"{_export(options.name, options.weights, options.output)}\n")
    except EngineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _export(name: str, weights: str | None, output: str | None) -> Path:
    if name not in ZOO:
        raise EngineError(unknown_name("model", name, ZOO))
    path = exported_file(name, weights)
    if output is None:
        return path
    try:
        write_atomically(Path(output), path.read_bytes(), mode=0o644)
    except OSError as error:
        raise EngineError(f"cannot write {output}: {error.strerror}") from error
    return Path(output)


if __name__ == "__main__":
    sys.exit(main())
