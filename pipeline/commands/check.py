"""`python -m pipeline check`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from engine.cache.bounded_file import why_no_file
from engine.registry import AUTO, ENGINE_NAMES
from interfaces.names import unknown_name
from pipeline.commands.console import complain, one_line, say, table, terminal_width
from pipeline.commands.effective_settings import HEADER, setting_rows
from pipeline.commands.node_checks import check_nodes
from pipeline.commands.overrides import assigned
from pipeline.config import read_config
from pipeline.errors import PipelineConfigError
from pipeline.findings import Findings
from pipeline.language.document import read_toml

# Lines of each kind; a file may have as many mistakes as it has lines.
_MOST_SHOWN = 100
_HAS_MISTAKES, _WRONG_COMMAND_LINE, _CANNOT_RUN_HERE = 1, 2, 3


def check(options: Namespace) -> int:
    """Print all mistakes, or the effective settings; `--help` says what the exit code means."""
    if reason := why_no_file(Path(options.file)):
        complain(f"error: {reason}")
        return _WRONG_COMMAND_LINE
    if options.engine not in (AUTO, *ENGINE_NAMES):
        complain(f"error: {unknown_name('engine', options.engine, [AUTO, *ENGINE_NAMES])}")
        return _WRONG_COMMAND_LINE
    findings, code = Findings(), 0
    try:
        document: dict[str, Any] = read_toml(options.file)
    except PipelineConfigError as error:
        # This message names the file itself.
        say(f"mistake: {one_line(str(error))}")
        return _HAS_MISTAKES
    for assignment in options.set:
        try:
            document = assigned(document, assignment)
        except PipelineConfigError as error:
            findings.add("", error)
            code = _WRONG_COMMAND_LINE
    config, in_document = read_config(document)
    findings.mistakes += in_document
    findings.warnings += config.warnings
    check_nodes(config.with_instances.values(), options.engine, findings)
    for kind, messages in (
        ("mistake", findings.mistakes),
        ("missing here", findings.missing),
        ("warning", findings.warnings),
    ):
        for message in messages[:_MOST_SHOWN]:
            say(f"{options.file}: {kind}: {one_line(message)}")
        if len(messages) > _MOST_SHOWN:
            say(f"{options.file}: {kind}: {len(messages) - _MOST_SHOWN} more")
    if findings.mistakes:
        return code or _HAS_MISTAKES
    count = f"{len(config.nodes)} node{'s' if len(config.nodes) > 1 else ''}"
    here = ", but it cannot run on this host" if findings.missing else ""
    say(f"{options.file}: {count}, no mistakes{here}")
    for name in config.graph.upstream_first():
        say(f"\n[{name}]\n{table(HEADER, setting_rows(config.nodes[name]), terminal_width())}")
    return _CANNOT_RUN_HERE if findings.missing else 0
