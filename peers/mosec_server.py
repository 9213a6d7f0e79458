"""mosec: worker processes behind an HTTP server in Rust; the body is the image."""

from __future__ import annotations

import sys
from typing import Any

from mosec import Server, Worker

from interfaces.peers import Setup
from peers.classifier import Classifier, Decoder, Pixels, announce

SETUP = Setup.from_variable()
BATCH = int(SETUP.options["batch"])
# Longer than any client waits.
_NO_LIMIT_MS = 86_400_000


class _Raw(Worker):  # type: ignore[misc]
    def deserialize(self, data: bytes) -> bytes:
        """The image as it came."""
        return data


class _Answering(Worker):  # type: ignore[misc]
    def serialize(self, data: Any) -> bytes:
        """The answer in JSON, which is what mosec writes by itself."""
        label, score = data
        encoded: bytes = super().serialize({"label": label, "score": score})
        return encoded


class Whole(_Raw, _Answering):
    """Decodes and infers."""

    def __init__(self) -> None:
        self._classifier = Classifier(SETUP, max_batch_size=BATCH)

    def forward(self, data: Any) -> Any:
        """One image, or a list of them where batches are on."""
        if BATCH == 1:
            return self._classifier.classify(data)
        return self._classifier.classify_batch(data)


class Decoding(_Raw):
    """The first of two stages."""

    def __init__(self) -> None:
        self._decoder = Decoder(SETUP)

    def forward(self, data: bytes) -> Pixels:
        """The image's pixels."""
        return self._decoder.pixels(data)


class Inferring(_Answering):
    """The second one."""

    def __init__(self) -> None:
        self._classifier = Classifier(SETUP, max_batch_size=BATCH)

    def forward(self, data: list[Pixels]) -> list[tuple[str, float]]:
        """The answers to a batch."""
        return self._classifier.infer(data)


def main() -> None:
    """Serve."""
    announce(SETUP, "mosec")
    timeout_ms = SETUP.queue_ms or _NO_LIMIT_MS
    sys.argv[1:] = ["--address", SETUP.host, "--port", str(SETUP.port)]
    sys.argv += ["--timeout", str(timeout_ms)]
    server = Server()
    if SETUP.options.get("stages") == 2:
        server.append_worker(Decoding, num=SETUP.cores)
        server.append_worker(Inferring, num=SETUP.workers, max_batch_size=BATCH, max_wait_time=1)
    else:
        server.append_worker(Whole, num=SETUP.workers, max_batch_size=BATCH, max_wait_time=1)
    server.run()


if __name__ == "__main__":
    main()
