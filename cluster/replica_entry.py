"""What a front end has to know of a replica."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReplicaEntry:
    """A replica that serves, as it tells of itself.

    Attributes:
        name: tells it from all others that there have been.
        host: address of its node, as the others reach it.
        port: of its Thrift server.
        node: Ray's id of its node.
        pid: of its process.
        release: which settings it runs: replicas of different ones are there during an update.
        images_at_work: how many images it works on at once.
        why_not_ready: why it can take no requests just now; "" where it can.
    """

    name: str
    host: str
    port: int
    node: str
    pid: int
    release: str
    images_at_work: int = 1
    why_not_ready: str = ""

    @property
    def place(self) -> str:
        """Its node and address, for people."""
        return f"node {self.node[:12]} at {self.host}:{self.port}"
