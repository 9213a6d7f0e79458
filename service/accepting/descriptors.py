"""How many files and connections this process and its children may have open."""

from __future__ import annotations

import logging
import resource

_log = logging.getLogger(__name__)

# Of models, libraries, threads' wake-ups and reserve connections.
_OTHERS = 256


def allow_descriptors(connections: int) -> None:
    """Raise the soft limit (`ulimit -n`) as far as connections need it and the hard one allows.

    Args:
        connections: how many there may be.
    """
    needed = connections + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        _log.warning(
            "--max-connections = %d needs about %d descriptors, and the hard limit (ulimit -Hn) is "
            "%d: connections beyond that wait without an answer",
            connections,
            needed,
            allowed,
        )
