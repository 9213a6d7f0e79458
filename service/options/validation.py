"""Settings from what was given on the command line, refused where they cannot work."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.cache.bounded_file import why_no_file, why_no_folder
from engine.cpu.cores import available_cores
from interfaces.kinds import FILE
from interfaces.names import unknown_name
from interfaces.options import dashed, options_of, settings_from
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.handlers.table import HANDLERS
from service.options.server_settings import ServerSettings


def server_settings(options: Namespace) -> ServerSettings:
    """The settings of the server as a whole.

    Raises:
        ConfigurationError: one of them cannot work.
    """
    given = vars(options)
    _check_files(ServerSettings, given)
    try:
        available_cores()
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return settings_from(ServerSettings, options)


def handler_settings(options: Namespace) -> HandlerSettings:
    """The handler's settings, as far as they can be checked before it is imported.

    Raises:
        ConfigurationError: one of them cannot work.
    """
    given = vars(options)
    if options.handler not in HANDLERS:
        raise ConfigurationError(unknown_name("handler", options.handler, HANDLERS))
    for described in options_of(HandlerSettings):
        if described.dest in given and (reason := described.refused.get(options.handler)):
            raise ConfigurationError(f"--{dashed(described.name)}: {reason}")
    if "decode" in given and "config" in given:
        raise ConfigurationError(
            "--decode chooses the shipped graph, and --config names another; give one of them"
        )
    if "crop" in given and "resize" not in given:
        raise ConfigurationError(
            "--crop is the middle of an image that --resize has resized; give --resize, too, such "
            "as --resize 256"
        )
    if "config" in given:
        for name in ("resize", "crop", "input_size"):
            if name in given:
                raise ConfigurationError(
                    f"--{dashed(name)}: the file of --config says itself how images are resized: "
                    "its resize_h and resize_w, min and max (ResizeCropMat is what --resize uses)"
                )
    _check_files(HandlerSettings, given)
    folder = given.get("calibration_images")
    if folder is not None and (reason := why_no_folder(Path(folder))):
        raise ConfigurationError(f"--calibration-images: {reason}")
    model = given.get("model")
    if model is not None and (os.sep in model or Path(model).suffix == ".onnx"):
        _check_file("--model", model)
    if ("mean" in given) != ("std" in given):
        raise ConfigurationError("--mean and --std go together; give both or none")
    if 0 in given.get("std", ()):
        raise ConfigurationError("--std must not hold 0: the image is divided by it")
    return settings_from(HandlerSettings, options, overrides=dict(given.get("overrides", ())))


def _check_files(settings: type, given: Mapping[str, Any]) -> None:
    for described in options_of(settings):
        if described.kind is FILE and given.get(described.dest) is not None:
            _check_file(f"--{dashed(described.name)}", given[described.dest])


def _check_file(spelling: str, text: str) -> None:
    """Raise ConfigurationError, with the closest name that is there, unless `text` is a file."""
    if reason := why_no_file(Path(text)):
        raise ConfigurationError(f"{spelling}: {reason}")
