"""`python -m pipeline check`."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from pipeline.commands.console import one_line, say, table, terminal_width
from pipeline.commands.effective_settings import HEADER, setting_rows
from pipeline.commands.host_checks import host_findings
from pipeline.commands.mistakes import DocumentCheck
from pipeline.commands.overrides import assigned
from pipeline.config import parse_config, read_toml
from pipeline.errors import PipelineConfigError


def check(options: Namespace) -> int:
    """Tell all mistakes and exit with 2, or the effective settings and exit with 0."""
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
    checked = DocumentCheck(document)
    findings = host_findings(checked.nodes)
    mistakes += checked.mistakes + findings.mistakes
    for kind, messages in (("mistake", mistakes), ("warning", findings.warnings)):
        for message in messages:
            say(f"{options.file}: {kind}: {one_line(message)}")
    if mistakes:
        return 2
    config = parse_config(document)
    count = f"{len(config.nodes)} node{'s' if len(config.nodes) > 1 else ''}"
    say(f"{options.file}: {count}, no mistakes")
    for name in config.graph.upstream_first():
        say(f"\n[{name}]\n{table(HEADER, setting_rows(config.nodes[name]), terminal_width())}")
    return 0
