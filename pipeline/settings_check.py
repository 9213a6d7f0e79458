"""Mistakes of the service's settings: `python -m pipeline.settings_check`, for a cluster.

It reads `HandlerSettings` from stdin and looks for what `thriftpipe check` looks for: no model is
loaded, and what this host alone lacks is no mistake, since the handler runs on others.
"""

from __future__ import annotations

import sys

from engine.errors import EngineError, MissingOnHostError
from engine.zoo import ZOO_NAMES
from interfaces.messages import from_json
from pipeline.backends.backend_file import load_backends
from pipeline.commands.node_checks import check_nodes
from pipeline.config import parse_config
from pipeline.errors import MissingHereError, PipelineConfigError
from pipeline.findings import Findings
from pipeline.handler_document import engine_node, handler_document, outline_document
from service.handlers.handler_settings import HandlerSettings
from service.handlers.process_load import MISTAKE_EXIT_CODE
from service.processes.process import leave


def mistakes(settings: HandlerSettings) -> list[str]:
    """What cannot work on any host, one text each; none where nothing was found."""
    findings = Findings()
    try:
        if settings.backends is not None:
            load_backends(settings.backends)
        config = parse_config(outline_document(settings))
        model = config.nodes[engine_node(config)].settings["model"]
        if settings.config is not None:
            model = settings.model or (model if settings.weights is not None else None)
        if model in ZOO_NAMES:
            # It fits its template, and would have to be exported first.
            return []
        if model is not None:
            config = parse_config(handler_document(settings))
        check_nodes(config.with_instances.values(), settings.engine, findings)
    except (MissingOnHostError, MissingHereError):
        return findings.mistakes
    except (EngineError, PipelineConfigError) as error:
        return [str(error)]
    return findings.mistakes


def main() -> int:
    """Answer the service; the exit code."""
    found = mistakes(from_json(sys.stdin.read(), [HandlerSettings]))
    if not found:
        return 0
    more = f" (and {len(found) - 1} more; `thriftpipe check` shows them)" if len(found) > 1 else ""
    sys.stderr.write(" ".join(f"{found[0]}{more}".split()) + "\n")
    return MISTAKE_EXIT_CODE


if __name__ == "__main__":
    leave(main())
