"""Which handlers there are. Only the one that is chosen gets imported."""

from __future__ import annotations

from pkgutil import resolve_name

from interfaces.garbage import none_while_importing
from interfaces.names import unknown_name
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.handlers.interface import Handler

HANDLERS = {
    "baseline": "baseline_trt.handler:create_handler",
    "pipeline": "pipeline.handler:create_handler",
    "null": "service.handlers.null:create_handler",
}

ALONE = {
    "baseline": "the baseline is one process with one lock",
    "null": "the null handler shows the cost of one process",
}
"""The handlers that run in one process unless more are asked for, with the reason."""
LOAD_MODULES = {"pipeline": "pipeline.process_load"}
"""Of the others: the program that reads HandlerSettings and writes a ProcessLoad."""
CHECK_MODULES = {"pipeline": "pipeline.settings_check"}
"""Of those with much to get wrong: the program that reads HandlerSettings and tells mistakes."""


def create_handler(name: str, settings: HandlerSettings) -> Handler:
    """Load and build a handler; this is the slow part of a start.

    Args:
        name: a key of HANDLERS.
        settings: what it builds itself from.

    Raises:
        ConfigurationError: unknown name, a package that is not installed, or settings that cannot
            work.
    """
    if name not in HANDLERS:
        raise ConfigurationError(unknown_name("handler", name, HANDLERS))
    try:
        with none_while_importing():
            create = resolve_name(HANDLERS[name])
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"handler {name!r} needs the module {error.name!r}, which is not installed"
        ) from error
    handler: Handler = create(settings)
    return handler
