"""All that a replica is made of: the settings of the front end, which travel to each node."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interfaces.kinds import FILE
from interfaces.options import options_of
from service.handlers.handler_settings import HandlerSettings
from service.logs.log_settings import LogSettings
from service.options.cluster_settings import ClusterSettings
from service.options.server_settings import ServerSettings

# Of all front ends together.
_MOST_CONNECTIONS = 16_384
# What of the server's settings is the front end's business: where it listens, and its clients.
_OF_FRONT_END: dict[str, Any] = {
    "host": "",
    "port": 0,
    "metrics_port": None,
    "workers": 1,
    "tls_cert": None,
    "tls_key": None,
    "tls_ca": None,
    "max_connections": _MOST_CONNECTIONS,
    # A front end keeps its connections.
    "idle_timeout_s": 0.0,
    # By then no front end chooses it.
    "drain_delay_s": 0.0,
}
# Beside the options of kind FILE, those whose text may be a path.
_PATHS = ("calibration_images",)


@dataclass(frozen=True)
class Release:
    """What runs on all replicas at a time, but for updates.

    Attributes:
        handler: its name.
        for_handler: its settings, with absolute paths, which mean the same on each node.
        settings: the server's; its address is the replica's own business.
        log: how it logs.
        options_given: the front end's options, in words.
    """

    handler: str
    for_handler: HandlerSettings
    settings: ServerSettings
    log: LogSettings
    options_given: str

    @classmethod
    def of(
        cls,
        handler: str,
        for_handler: HandlerSettings,
        settings: ServerSettings,
        log: LogSettings,
        options_given: str,
    ) -> Release:
        """That of a front end with these settings."""
        return cls(
            handler,
            _with_absolute_paths(for_handler),
            replace(_with_absolute_paths(settings), **_OF_FRONT_END),
            _with_absolute_paths(replace(log, log_file=None)),
            options_given,
        )

    @property
    def name(self) -> str:
        """The same for equal settings, whatever the front end's own are."""
        parts = (self.handler, self.for_handler, self.settings)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Plan:
    """How replicas of a release are placed.

    Attributes:
        release: what they run.
        cluster: how many there are.
        cpus: cores that each reserves.
        host: the address that it listens on; "" for that of its node.
    """

    release: Release
    cluster: ClusterSettings
    cpus: float
    host: str = ""

    @property
    def cores(self) -> int:
        """On how many each may count."""
        return max(1, int(self.cpus))


@dataclass(frozen=True)
class Rollout:
    """How far the update is that brings a release; Serve tells all replicas of a change.

    Attributes:
        is_announced: whether front ends hear of its replicas.
        replaces: name of the release in whose place it comes; "" for none.
    """

    is_announced: bool = False
    replaces: str = ""


def _with_absolute_paths(settings: Any) -> Any:
    changes: dict[str, str] = {}
    for described in options_of(type(settings)):
        text = getattr(settings, described.dest)
        if not isinstance(text, str):
            continue
        is_model_file = described.dest == "model" and (os.sep in text or text.endswith(".onnx"))
        if described.kind is FILE or described.dest in _PATHS or is_model_file:
            changes[described.dest] = str(Path(text).absolute())
    return replace(settings, **changes)
