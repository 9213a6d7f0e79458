"""What the pipeline asks of each process: `python -m pipeline.process_load`, for the service.

It reads `HandlerSettings` from stdin and writes a `ProcessLoad`. No model is opened.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine.errors import EngineError
from engine.onnx_graph.file import size_with_external_data
from engine.zoo import ZOO_NAMES
from interfaces.error_text import in_one_line
from interfaces.messages import from_json, to_json
from pipeline.backends.assembly import runs_on_gpu
from pipeline.config import PipelineConfig, parse_config
from pipeline.engine_process.split import entry_of_engine_process, front_part
from pipeline.errors import PipelineConfigError
from pipeline.handler_document import engine_node, outline_document, overrides_of
from service.handlers.handler_settings import HandlerSettings
from service.handlers.process_load import MISTAKE_EXIT_CODE, ProcessLoad
from service.processes.process import leave

# That of the largest one, ResNet-50.
_ZOO_MODEL_BYTES = 103_000_000


def process_load(settings: HandlerSettings) -> ProcessLoad:
    """What the settings ask of each process.

    Raises:
        PipelineConfigError: the configuration cannot be used.
        EngineError: there is no such engine here.
    """
    config = parse_config(outline_document(settings))
    on_gpu = [
        node
        for node in config.with_instances.values()
        if runs_on_gpu(node.backend, node.settings, settings.engine)
    ]
    entry = entry_of_engine_process(config, settings.engine)
    own = config if entry is None else front_part(config, entry)
    left_to_others = {entry} if entry is not None else set()
    names = own.with_instances.keys() - left_to_others
    return ProcessLoad(
        gpus=len({number for node in on_gpu for number in node.device_ids}),
        decodes_on_gpu=bool(on_gpu) and not names,
        shares_engine=entry is not None,
        instances=max((_instances(own, name, settings) for name in names), default=0),
        model_bytes=_model_bytes(config, settings),
    )


def _instances(config: PipelineConfig, name: str, settings: HandlerSettings) -> int:
    """How many of a node the user asks for; 0 where that is left open."""
    is_set = not {"instance_num", f"{name}.instance_num"}.isdisjoint(overrides_of(settings))
    return config.nodes[name].instance_num if is_set or settings.config is not None else 0


def _model_bytes(config: PipelineConfig, settings: HandlerSettings) -> int:
    model = str(config.nodes[engine_node(config)].settings["model"])
    if settings.config is not None:
        model = settings.model or model
    return _ZOO_MODEL_BYTES if model in ZOO_NAMES else size_with_external_data(Path(model))


def main() -> int:
    """Answer the service; the exit code."""
    settings = from_json(sys.stdin.read(), [HandlerSettings])
    try:
        load = process_load(settings)
    except (EngineError, PipelineConfigError) as error:
        sys.stderr.write(f"{in_one_line(error)}\n")
        return MISTAKE_EXIT_CODE
    sys.stdout.write(to_json(load))
    return 0


if __name__ == "__main__":
    leave(main())
