"""`python -m engine.zoo`: list the models that have a name, or export one to a file."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.cache.atomic_file import write_atomically
from engine.errors import EngineError
from engine.names import unknown_name
from engine.zoo.store import ZOO, exported_file


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.zoo", description="Models that come with a name."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the models")
    export = commands.add_parser("export", help="export a model and print the file's path")
    export.add_argument("name", help=f"one of: {', '.join(ZOO)}")
    export.add_argument("--weights", help="state-dict file; the model's own weights otherwise")
    export.add_argument("--output", type=Path, help="file to write; the cache folder otherwise")
    options = parser.parse_args(arguments)
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


def _export(name: str, weights: str | None, output: Path | None) -> Path:
    if name not in ZOO:
        raise EngineError(unknown_name("model", name, ZOO))
    path = exported_file(name, weights)
    if output is None:
        return path
    try:
        write_atomically(output, path.read_bytes(), mode=0o644)
    except OSError as error:
        raise EngineError(f"cannot write {output}: {error.strerror}") from error
    return output


if __name__ == "__main__":
    sys.exit(main())
