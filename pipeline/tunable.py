"""The document that a service would run: `python -m pipeline.tunable`, for `loadtest tune`.

It takes the service's options of the model and writes a `Tunable`. Everything is decided then: what
a file leaves open is measured, as at the first start of a service, and the document says it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from engine.errors import EngineError
from interfaces.command_line import Parser
from interfaces.error_text import in_one_line
from interfaces.messages import to_json
from interfaces.options import options_of, picked, settings_from
from interfaces.tuning import Tunable
from pipeline.backends.assembly import runs_on_gpu
from pipeline.config import NodeConfig, parse_config
from pipeline.errors import PipelineConfigError
from pipeline.handler_document import OPTIONS, calibrated_document, engine_node
from pipeline.language.settings import BatchShape
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings


def tunable(settings: HandlerSettings) -> Tunable:
    """What a service with these settings would run.

    Raises:
        PipelineConfigError: the configuration cannot be used, or has a batch for each instance.
        EngineError: the engine, its precision or the model cannot be had.
    """
    document, _ = calibrated_document(settings)
    config = parse_config(document)
    name = engine_node(config)
    nodes = config.with_instances
    node, others = nodes[name], [other for other in nodes.values() if other.name != name]
    most = _largest_batch(node)
    as_it_is = (settings.weights, settings.input_size, settings.crop) == (None, None, None)
    if settings.model is not None and as_it_is:
        # As it was named: a packaged model lies in a folder of this machine.
        document = {**document, name: {**document[name], "model": settings.model}}
    return Tunable(
        document=document,
        engine_node=name,
        thread_nodes=[other.name for other in others],
        instance_num=node.instance_num,
        most_rows=most.rows,
        shapes=["".join(f"x{side}" for side in shape) for shape in most.item_shapes or ((),)],
        batching_timeout_ms=node.batching_timeout_ms,
        threads=max((other.instance_num for other in others), default=0),
        on_gpu=runs_on_gpu(node.backend, node.settings, settings.engine),
    )


def _largest_batch(node: NodeConfig) -> BatchShape:
    value: Any = node.settings["max"]
    if isinstance(value, BatchShape):
        return value
    if len(value) == 1:
        found: BatchShape = value[0]
        return found
    raise PipelineConfigError(
        f"[{node.name}] max has a shape for each of several instances; one for all can be tuned"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one line; the exit code."""
    parser = Parser(prog="python -m pipeline.tunable", description=__doc__)
    for described in picked(options_of(HandlerSettings), OPTIONS):
        parser.add(described)
    try:
        found = tunable(settings_from(HandlerSettings, parser.parse(arguments)))
    except (EngineError, PipelineConfigError, ConfigurationError) as error:
        sys.stderr.write(f"{in_one_line(error)}\n")
        return 2
    sys.stdout.write(to_json(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
