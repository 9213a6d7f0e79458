"""What `Clients` needs of the processes that send a load, wherever they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class LoadProcess(Protocol):
    """A process of users, which speaks `client_protocol`."""

    @property
    def title(self) -> str:
        """What messages call it."""

    def __hash__(self) -> int: ...

    def write_line(self, line: str) -> None:
        """Send it a message."""


class Pool(Protocol):
    """Such processes, which take one load after the other."""

    @property
    def processes(self) -> Sequence[LoadProcess]:
        """All of them; a load takes the first ones."""

    def prepare(self, processes: Sequence[Any]) -> None:
        """Make those ready that take the next load."""

    def clock_offset_s(self, process: Any) -> float:
        """What its monotonic clock shows more than this process's."""

    def start(self, processes: Sequence[Any], users: int) -> None:
        """Start so many users on them."""

    def next(self, timeout_s: float) -> tuple[Any, str | None]:
        """What one of them says next, None where it has ended; queue.Empty for nothing in time."""

    def why_lost(self, process: Any) -> str:
        """Why it has ended; LoadTestError where the load cannot go on to be told of."""

    def finish(self, processes: Sequence[Any]) -> None:
        """Find out, after a load, what there is to tell of them."""

    def facts(self, process: Any) -> dict[str, Any]:
        """What result files say of one: its number as "worker", and what else there is."""

    def pids(self, processes: Sequence[Any]) -> list[int] | None:
        """Process ids here; None where some run on other machines."""
