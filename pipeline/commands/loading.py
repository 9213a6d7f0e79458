"""A pipeline loaded for a command, with what a waiting user sees meanwhile."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from engine.errors import EngineError
from engine.interface import Engine
from interfaces.image_formats import FORMATS
from pipeline.backends.inference import ENGINE, ENGINE_BACKEND
from pipeline.callable_pipe import Pipe
from pipeline.commands.console import complain
from pipeline.commands.node_checks import check_nodes
from pipeline.commands.overrides import read_document
from pipeline.config import PipelineConfig, read_config
from pipeline.errors import PipelineConfigError, PipelineInputError
from pipeline.findings import Findings
from pipeline.image_files import usable_images
from pipeline.language.document import apply_overrides
from pipeline.pixel_warnings import DECODERS, pixel_warnings
from pipeline.runtime.parts import PLAIN_PARTS, Parts
from service.errors import ConfigurationError
from service.images.decode_memory import limit_decode_memory
from service.images.limit import ImageLimit

CANNOT_BEGIN = (PipelineConfigError, PipelineInputError, EngineError, ConfigurationError)
"""What keeps a command from its beginning: errors of what it was given."""


@contextmanager
def loaded_pipe(
    options: Namespace, *, profile: bool = False, parts: Parts = PLAIN_PARTS
) -> Iterator[Pipe]:
    """The pipe of a command line's file, `--set` and `--engine`.

    Args:
        options: the command line.
        profile: whether every backend waits for its own work, whose time is then one of an item's.
        parts: as for a `Pipe`.

    Raises:
        PipelineConfigError, EngineError: it cannot be loaded; what else is wrong went to stderr.
    """
    document = read_document(options.file, options.set)
    if profile:
        tables = [key for key, value in document.items() if isinstance(value, Mapping)]
        keys = ["profile_stages", *(f"{table}.profile_stages" for table in tables)]
        document = apply_overrides(document, dict.fromkeys(keys, "true"))
    config, mistakes = read_config(document)
    if mistakes:
        _refuse(mistakes)
    for warning in (*config.warnings, *pixel_warnings(config.with_instances.values())):
        complain(f"warning: {warning}")
    count = len(config.nodes)
    complain(f"loading {options.file} ({count} node{'s' if count > 1 else ''}) ...")
    started_s = time.monotonic()
    with _pipe(config, options.engine, parts) as loaded:
        running = ", ".join(_running(loaded, name) for name in loaded.local_nodes)
        complain(f"loaded in {time.monotonic() - started_s:.1f} s: {running}")
        yield loaded


def named_images(options: Namespace, names: Sequence[str]) -> list[Path]:
    """The images that a command line names, checked before its pipeline is loaded.

    What decoding them may cost is limited from here on, as a server limits it.

    Args:
        options: the command line.
        names: its files and folders.

    Raises:
        PipelineConfigError: the pipeline's file cannot be read.
        ConfigurationError: images cannot be used, which went to stderr, or there is none.
    """
    limit_decode_memory(options.max_decoded_bytes)
    return usable_images(
        [Path(name) for name in names],
        decodes=_decodes_images(options),
        skip_bad=options.skip_bad_images,
        tell=complain,
        limit=ImageLimit(options.max_image_pixels, options.max_decoded_bytes, FORMATS),
    )


def _decodes_images(options: Namespace) -> bool:
    """Whether the file of a command line decodes images, so that it can use no other files.

    False for a file with mistakes, which are reported when it is loaded.
    """
    config, _ = read_config(read_document(options.file, options.set))
    backends = (it.cls for node in config.with_instances.values() for it in node.backends())
    return any(issubclass(cls, DECODERS) for cls in backends)


def _pipe(config: PipelineConfig, engine: str, parts: Parts) -> Pipe:
    try:
        return Pipe(config, engine=engine, parts=parts)
    except PipelineConfigError:
        findings = Findings()
        check_nodes(config.with_instances.values(), engine, findings)
        if errors := findings.mistakes + findings.missing:
            _refuse(errors)
        raise


def _refuse(errors: Sequence[str]) -> NoReturn:
    """Tell all that is wrong, the last by raising it."""
    for error in errors[:-1]:
        complain(f"error: {error}")
    raise PipelineConfigError(errors[-1])


def _running(loaded: Pipe, name: str) -> str:
    """A node with its instances, and what runs its model."""
    node = loaded.local_nodes[name]
    text = f"{name} x {node.instance_num * max(1, len(node.device_ids))}"
    if ENGINE_BACKEND not in loaded.config.nodes[name].backend.names():
        return text
    engine: Engine = node.shared.get(ENGINE)
    return f"{text} ({engine.model.name}, {engine.name} {engine.options.precision})"
