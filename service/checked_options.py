"""Settings from what was given on the command line, refused where they cannot work."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path

from engine.cpu import available_cores
from engine.names import unknown_name
from service.handler import ConfigurationError, HandlerSettings
from service.handlers import HANDLERS
from service.server_settings import ServerSettings

_MODEL_OPTIONS = (
    *("engine", "precision", "model", "weights", "config", "set", "backends", "mean", "std"),
    *("no_lock", "max_batch_size", "decode", "devices", "calibration_images"),
)
# Options that one handler has no use for, and why; a silently ignored one would mislead.
_BASELINE_HAS_NO_GRAPH = "the baseline has no TOML file and no nodes; it is for --handler pipeline"
_BASELINE_DECODES_ON_CPU = "the baseline decodes on the CPU; it is for --handler pipeline"
_PIPELINE_HAS_NO_LOCK = "the pipeline takes no lock; it is for --handler baseline"
_PIPELINE_BATCH = "the pipeline's TOML file sets its batches; use --set NODE.max=8x3x224x224"
_NULL_HAS_NO_MODEL = "the null handler runs no model"
_REFUSED = {
    "baseline": {
        "config": _BASELINE_HAS_NO_GRAPH,
        "set": _BASELINE_HAS_NO_GRAPH,
        "backends": _BASELINE_HAS_NO_GRAPH,
        "decode": _BASELINE_DECODES_ON_CPU,
    },
    "pipeline": {"no_lock": _PIPELINE_HAS_NO_LOCK, "max_batch_size": _PIPELINE_BATCH},
    "null": dict.fromkeys(_MODEL_OPTIONS, _NULL_HAS_NO_MODEL),
}


def server_settings(options: Namespace) -> ServerSettings:
    """The settings of the server as a whole.

    Raises:
        ConfigurationError: one of them cannot work.
    """
    given = vars(options)
    labels = given.get("labels")
    if labels is not None:
        _check_file("--labels", labels)
    for name in ("tls_cert", "tls_key", "tls_ca"):
        if name in given:
            _check_file(f"--{name.replace('_', '-')}", given[name])
    try:
        available_cores()
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    names = {field.name for field in fields(ServerSettings)}
    return ServerSettings(**{name: given[name] for name in names & given.keys()})


def handler_settings(options: Namespace) -> HandlerSettings:
    """The handler's settings, as far as they can be checked before it is imported.

    Raises:
        ConfigurationError: one of them cannot work.
    """
    given = vars(options)
    if options.handler not in HANDLERS:
        raise ConfigurationError(unknown_name("handler", options.handler, HANDLERS))
    for name, reason in _REFUSED[options.handler].items():
        if name in given:
            raise ConfigurationError(f"--{name.replace('_', '-')}: {reason}")
    if "decode" in given and "config" in given:
        raise ConfigurationError(
            "--decode chooses the shipped graph, and --config names another; give one of them"
        )
    for name in ("config", "weights", "backends"):
        if name in given:
            _check_file(f"--{name}", given[name])
    folder = given.get("calibration_images")
    if folder is not None and not Path(folder).is_dir():
        raise ConfigurationError(f"--calibration-images: there is no folder {folder}")
    model = given.get("model")
    if model is not None and (os.sep in model or Path(model).suffix == ".onnx"):
        _check_file("--model", model)
    if ("mean" in given) != ("std" in given):
        raise ConfigurationError("--mean and --std go together; give both or none")
    if 0 in given.get("std", ()):
        raise ConfigurationError("--std must not hold 0: the image is divided by it")
    names = {field.name for field in fields(HandlerSettings)}
    return HandlerSettings(
        **{name: given[name] for name in names & given.keys()},
        overrides=_overrides(given.get("set", ())),
        lock="no_lock" not in given,
    )


def _overrides(assignments: Sequence[str]) -> dict[str, str]:
    """Texts of the form [NODE.]KEY=VALUE as key to value; the last of equal keys counts."""
    overrides = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not key.strip() or not equals:
            raise ConfigurationError(
                f"--set takes [NODE.]KEY=VALUE, such as batching_timeout=2, got {assignment!r}"
            )
        overrides[key.strip()] = value.strip()
    return overrides


def _check_file(option: str, text: str) -> None:
    """Raise ConfigurationError, with the closest name that is there, unless `text` is a file."""
    path = Path(text)
    if path.is_file():
        return
    if path.is_dir():
        raise ConfigurationError(f"{option}: {text} is a folder, a file is needed")
    folder = path.parent
    if not folder.is_dir():
        raise ConfigurationError(f"{option}: there is no folder {folder}")
    closest = get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1)
    hint = f"; did you mean {folder / closest[0]}?" if closest else ""
    raise ConfigurationError(f"{option}: there is no file {text}{hint}")
