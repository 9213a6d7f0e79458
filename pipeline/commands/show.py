"""`python -m pipeline show`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from pipeline.commands.console import complain, say, terminal_width
from pipeline.commands.graph_text import draw_text
from pipeline.commands.overrides import read_document
from pipeline.config import PipelineConfig, parse_config
from pipeline.errors import PipelineConfigError

_SUFFIXES = (".svg", ".png")


def show(options: Namespace) -> int:
    """Draw the graph; 2 if the file has a mistake, 1 if the picture cannot be written."""
    try:
        config = parse_config(read_document(options.file, options.set))
    except PipelineConfigError as error:
        complain(f"error: {error}")
        return 2
    if options.output is None:
        say(draw_text(config, terminal_width()))
        return 0
    return _write(config, Path(options.output), Path(options.file).name)


def _write(config: PipelineConfig, path: Path, title: str) -> int:
    if path.suffix.lower() not in _SUFFIXES:
        complain(f"error: --output {path}: expected a name that ends in {' or '.join(_SUFFIXES)}")
        return 2
    try:
        from pipeline.commands.graph_figure import draw_figure
    except ModuleNotFoundError as error:
        complain(
            f"error: --output needs the package {error.name!r}; install thriftpipe with its "
            "'bench' extra, or leave --output away for a picture in the terminal"
        )
        return 1
    try:
        draw_figure(config, path, title)
    except OSError as error:
        complain(f"error: --output {path}: {error.strerror or error}")
        return 1
    return 0
