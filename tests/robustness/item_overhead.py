"""A process that hands items through three nodes that do nothing, as fast as it can.

It runs as a file, with the `pipeline` of any checkout on PYTHONPATH. Each line of standard input is
a number of seconds, answered with the number of items that were done in them.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from pipeline import pipe, register_backend

_THREADS = 10


@register_backend(name="HandOn")
class HandOn:
    """Its result is its data."""

    def forward(self, items: list[dict[str, Any]]) -> None:
        """Set the results."""
        for item in items:
            item["result"] = item["data"]


def main() -> None:
    """Serve standard input until it ends."""
    nodes = {
        name: {"backend": "HandOn", **({"next": behind} if behind else {})}
        for name, behind in (("a", "b"), ("b", "c"), ("c", ""))
    }
    with pipe(nodes) as run:
        for line in sys.stdin:
            print(_items(run, float(line)), flush=True)


def _items(run: Any, length_s: float) -> int:
    end_s = time.perf_counter() + length_s
    counts = [0] * _THREADS

    def call(thread: int) -> None:
        while time.perf_counter() < end_s:
            run({"data": b""})
            counts[thread] += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


if __name__ == "__main__":
    main()
