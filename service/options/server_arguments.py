"""The command line of the server, made of the options of the settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

from interfaces.command_line import Parser
from interfaces.options import Option, option, options_of
from service.handlers.handler_settings import HandlerSettings
from service.handlers.table import HANDLERS
from service.logs.log_settings import LogSettings
from service.options.cluster_settings import ClusterSettings
from service.options.server_settings import ServerSettings

PROGRAM = "python -m service"
DESCRIPTION = "Serve image classification over Thrift (binary protocol, framed or not)."


@dataclass(frozen=True)
class ProcessSettings:
    """The options that are neither the handler's nor the server's."""

    handler: str = option(
        "pipeline",
        "what classifies: the locked baseline, the batching pipeline, or null, a measuring aid "
        "that answers at once and so shows the cost of the server itself",
        metavar=f"{{{','.join(HANDLERS)}}}",
    )


def server_options() -> list[Option]:
    """What the command line takes."""
    for_server = (replace(o, group=o.group or "server") for o in options_of(ServerSettings))
    described = [
        *options_of(ProcessSettings),
        *options_of(LogSettings),
        *options_of(HandlerSettings),
        *for_server,
        *options_of(ClusterSettings),
    ]
    return [replace(one, is_gathered=True) for one in described]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line, by the names of the settings' fields.

    Options of the model that were not given are not in the result; the others always are.
    A mistake is told in one line, and ends the process with exit code 2.
    """
    parser = Parser(prog=PROGRAM, description=DESCRIPTION)
    groups = {name: parser.add_argument_group(name) for name in ("model", "server", "cluster")}
    for described in server_options():
        is_of_model = described.group == "model"
        parser.add(described, groups.get(described.group), is_left_out=is_of_model)
    return parser.parse(arguments)
