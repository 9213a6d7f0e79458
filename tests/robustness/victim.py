"""A client that is killed midway: `python -m tests.robustness.victim PORT`, until SIGKILL.

It keeps calls half sent, calls without their answer read, and answers half read, all at once.
"""

from __future__ import annotations

import itertools
import sys

from tests.robustness import wire
from tests.robustness.colour_model import LABELS, encoded

_TIMEOUT_S = 10.0
_CONNECTIONS = 6


def main() -> None:
    """Send for ever."""
    port = int(sys.argv[1])
    images = [(label.encode(), encoded(label, 200, 150)) for label in LABELS]
    message = wire.frame(wire.infer_images(1, images))
    halves = [wire.connect(port, _TIMEOUT_S) for _ in range(_CONNECTIONS)]
    for sock in halves:
        sock.sendall(message[: len(message) // 2])
    print("killable", flush=True)
    for number in itertools.count():
        unread = wire.connect(port, _TIMEOUT_S)
        unread.sendall(message)
        if number % 2:
            unread.recv(1 + number % 40)


if __name__ == "__main__":
    main()
