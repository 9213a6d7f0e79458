"""Names under which the parts of a server are found in a Ray cluster."""

from __future__ import annotations

DEPLOYMENT = "replica"
NAMESPACE = "thriftpipe"
REGISTRY = "registry"
UPDATE = "update"
"""The actor that lives while an update is under way."""

_PREFIX = "thriftpipe-"


def app_name(release: str) -> str:
    """The Serve application whose deployment are the replicas of a release."""
    return _PREFIX + release


def is_app_name(name: str) -> bool:
    """Whether a Serve application is this server's."""
    return name.startswith(_PREFIX)


def release_of(name: str) -> str:
    """The release of such an application."""
    return name.removeprefix(_PREFIX)
