"""What a server tells of its nodes at the ends of a window."""

from __future__ import annotations

from loadtest.errors import LoadTestError
from loadtest.load.rpc import connection
from loadtest.records.node_counts import NodeCounts

_TIMEOUT_S = 5.0


def node_counts(host: str, port: int) -> dict[str, NodeCounts]:
    """Node to what it has done since the server started.

    Empty where the server does not tell: an older one, or one that is at its end. A measurement is
    worth as much without it.
    """
    try:
        with connection(host, port, _TIMEOUT_S) as client:
            told = client.stats()
    except LoadTestError:
        return {}
    return {name: NodeCounts.of(node) for name, node in told.nodes.items()}
