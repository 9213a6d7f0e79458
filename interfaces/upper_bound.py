"""What `python -m pipeline.upper_bound` prints: one JSON object in the last line of its output."""

from __future__ import annotations

from dataclasses import dataclass

from interfaces.printed_result import PrintedResult


@dataclass(frozen=True)
class UpperBound(PrintedResult):
    """How fast preprocessing and engine are without a server.

    Attributes:
        images_per_s: the highest rate.
        batch_size: the batch size that reached the highest rate in one process.
        processes: how many processes reached it.
        threads: how many threads each of them had.
        by_batch_size: rates of one process, in images a second, by batch size.
        by_processes: rates with that batch size, in images a second, by number of processes.
    """

    images_per_s: float
    batch_size: int
    processes: int
    threads: int
    by_batch_size: dict[str, float]
    by_processes: dict[str, float]
