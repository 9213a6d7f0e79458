"""`python -m pipeline show`."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from pipeline.commands.console import complain, say, terminal_width
from pipeline.commands.graph_view import as_mermaid, as_text
from pipeline.commands.overrides import read_document
from pipeline.commands.pipeline_arguments import MERMAID
from pipeline.config import PipelineConfig, parse_config
from pipeline.errors import PipelineConfigError

_SUFFIXES = (".svg", ".png")


def show(options: Namespace) -> int:
    """Show the graph; 2 if the file has a mistake, 1 if the picture cannot be written."""
    try:
        config = parse_config(read_document(options.file, options.set))
    except PipelineConfigError as error:
        complain(f"error: {error}")
        return 2
    if options.output is not None:
        return _write(config, Path(options.output), Path(options.file).name)
    if options.format == MERMAID:
        say(as_mermaid(config))
    else:
        say(as_text(config, terminal_width(), ascii_only=not _can_encode("╙─╼╾╽")))
    return 0


def _can_encode(characters: str) -> bool:
    try:
        characters.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _write(config: PipelineConfig, path: Path, title: str) -> int:
    if path.suffix.lower() not in _SUFFIXES:
        complain(f"error: --output {path}: expected a name that ends in {' or '.join(_SUFFIXES)}")
        return 2
    try:
        from pipeline.commands.graph_picture import draw_picture
    except ModuleNotFoundError as error:
        complain(
            f"error: --output needs the package {error.name!r}; install thriftpipe with its "
            "'bench' extra, or use --format mermaid"
        )
        return 1
    try:
        draw_picture(config, path, title)
    except OSError as error:
        complain(f"error: --output {path}: {error.strerror or error}")
        return 1
    return 0
