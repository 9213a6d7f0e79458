"""The command line of the server, made of the options of the settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from engine.names import unknown_name
from service.handlers.interface import HandlerSettings
from service.handlers.table import HANDLERS
from service.option import Option, dashed, default_text, option, options_of, spelled
from service.options.server_settings import ServerSettings


@dataclass(frozen=True)
class ProcessSettings:
    """The options that are neither the handler's nor the server's."""

    handler: str = option(
        "",
        "what classifies: the locked baseline, the batching pipeline, or null, a measuring aid "
        "that answers at once and so shows the cost of the server itself",
        metavar=f"{{{','.join(HANDLERS)}}}",
        is_required=True,
        group="",
    )
    log_level: str = option(
        "info",
        "least severe log lines; the ready line is an info line",
        choices=("debug", "info", "warning", "error"),
    )


SETTINGS = (ProcessSettings, HandlerSettings, ServerSettings)
"""The dataclasses whose options the command line takes."""


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, with the closest option where one was mistyped."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see --help)\n")

    def parse_options(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            name = unknown[0].split("=")[0]
            known = [text for text in self._option_string_actions if text.startswith("--")]
            self.error(unknown_name("option", name, known))
        return options


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line, by the names of the settings' fields.

    Options of the model that were not given are not in the result; the others always are.
    A mistake is told in one line, and ends the process with exit code 2.
    """
    parser = _Parser(
        prog="python -m service",
        description="Serve image classification over Thrift (binary protocol, framed or not).",
        allow_abbrev=False,
    )
    groups = {
        "": parser,
        "model": parser.add_argument_group("model"),
        "server": parser.add_argument_group("server"),
    }
    for settings in SETTINGS:
        for entry, described in options_of(settings):
            spellings = [spelled(entry)]
            if described.alias:
                spellings.append(f"--{dashed(described.alias)}")
            is_optional = described.group == "model" or described.is_required
            default = argparse.SUPPRESS if is_optional else entry.default
            groups[described.group].add_argument(
                *spellings,
                dest=entry.name,
                default=default,
                help=_help(described, default_text(entry)),
                **_value(described),
            )
    return parser.parse_options(arguments)


def _value(described: Option) -> dict[str, Any]:
    """What argparse is to know of the value."""
    if described.is_switch:
        return {"action": "store_false"}
    value: dict[str, Any] = {
        "type": described.parse,
        "metavar": described.metavar,
        "required": described.is_required,
    }
    if described.choices:
        value["choices"] = described.choices
    if described.is_repeated:
        value["action"] = "append"
    return value


def _help(described: Option, default: str) -> str:
    text = described.text.replace("`", "").replace("%", "%%")
    return f"{text} (default: {default})" if default else text
