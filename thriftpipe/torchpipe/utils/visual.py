"""`Visual`: the graph of a configuration."""

from __future__ import annotations

import html
import os
from pathlib import Path

from pipeline.commands.console import say, terminal_width
from pipeline.commands.drawing import drawing_of
from pipeline.commands.graph_view import as_mermaid, as_text
from pipeline.config import parse_config
from pipeline.errors import PipelineConfigError
from thriftpipe.torchpipe.configuration import document_of
from thriftpipe.torchpipe.errors import ConfigError

_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<pre>{text}</pre>
<details><summary>Mermaid</summary><pre>{mermaid}</pre></details>
"""


class Visual:
    """The graph of a configuration.

    Args:
        configs: a configuration, as for `pipe`.

    Raises:
        ConfigError: it has no graph.
    """

    def __init__(self, configs: object) -> None:
        try:
            self._drawing = drawing_of(parse_config(document_of(configs)))
        except ConfigError:
            raise
        except PipelineConfigError as error:
            raise ConfigError(str(error)) from error

    def launch(self) -> None:
        """Print it; `python -m pipeline show FILE --output graph.svg` draws a picture."""
        say(as_text(self._drawing, terminal_width()))

    def save_html(self, save_name: str | os.PathLike[str]) -> None:
        """Write it as a page."""
        text = as_text(self._drawing, 100)
        page = _PAGE.format(
            title=html.escape(Path(save_name).stem),
            text=html.escape(text),
            mermaid=html.escape(as_mermaid(self._drawing)),
        )
        Path(save_name).write_text(page, encoding="utf-8")
