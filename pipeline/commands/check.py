"""`python -m pipeline check`."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from pipeline.commands.console import one_line, say, table, terminal_width
from pipeline.commands.effective_settings import HEADER, setting_rows
from pipeline.commands.node_checks import node_findings
from pipeline.commands.overrides import assigned
from pipeline.config import read_config
from pipeline.errors import PipelineConfigError
from pipeline.language.document import read_toml


def check(options: Namespace) -> int:
    """Print all mistakes and exit with 2, or the effective settings and exit with 0."""
    mistakes: list[str] = []
    try:
        document: dict[str, Any] = read_toml(options.file)
    except PipelineConfigError as error:
        # This message names the file itself.
        say(f"mistake: {one_line(str(error))}")
        return 2
    for assignment in options.set:
        try:
            document = assigned(document, assignment)
        except PipelineConfigError as error:
            mistakes.append(str(error))
    config, in_document = read_config(document)
    findings = node_findings(config.nodes.values())
    mistakes += in_document + findings.mistakes
    for kind, messages in (("mistake", mistakes), ("warning", findings.warnings)):
        for message in messages:
            say(f"{options.file}: {kind}: {one_line(message)}")
    if mistakes:
        return 2
    count = f"{len(config.nodes)} node{'s' if len(config.nodes) > 1 else ''}"
    say(f"{options.file}: {count}, no mistakes")
    for name in config.graph.upstream_first():
        say(f"\n[{name}]\n{table(HEADER, setting_rows(config.nodes[name]), terminal_width())}")
    return 0
