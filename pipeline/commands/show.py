"""`python -m pipeline show`."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from interfaces.extras import install_command
from pipeline.commands.console import complain, say, terminal_width
from pipeline.commands.drawing import Drawing, sketched
from pipeline.commands.graph_view import as_mermaid, as_text
from pipeline.commands.overrides import read_document
from pipeline.commands.pipeline_arguments import MERMAID
from pipeline.errors import PipelineConfigError

_SUFFIXES = (".svg", ".png")


def show(options: Namespace) -> int:
    """Show the graph, with what is wrong in it marked; `--help` says what the exit code means."""
    try:
        drawing, mistakes = sketched(read_document(options.file, options.set))
    except PipelineConfigError as error:
        complain(f"error: {error}")
        return 2
    code = 1 if mistakes else 0
    if options.output is not None:
        code = _write(drawing, Path(options.output), Path(options.file).name) or code
    elif options.format == MERMAID:
        say(as_mermaid(drawing))
    else:
        say(as_text(drawing, terminal_width(), ascii_only=not _can_encode("╙─╼╾╽")))
    for mistake in mistakes:
        complain(f"mistake: {mistake}")
    return code


def _can_encode(characters: str) -> bool:
    try:
        characters.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _write(drawing: Drawing, path: Path, title: str) -> int:
    if path.suffix.lower() not in _SUFFIXES:
        complain(f"error: --output {path}: expected a name that ends in {' or '.join(_SUFFIXES)}")
        return 2
    try:
        from pipeline.commands.graph_picture import draw_picture
    except ModuleNotFoundError as error:
        complain(
            f"error: --output needs the package {error.name!r}: {install_command('bench')}, "
            "or use --format mermaid"
        )
        return 1
    if not drawing.has_layers:
        complain("error: --output cannot draw nodes that form a cycle; --format mermaid can")
        return 1
    try:
        draw_picture(drawing, path, title)
    except OSError as error:
        complain(f"error: --output {path}: {error.strerror or error}")
        return 1
    return 0
