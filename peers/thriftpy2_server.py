"""thriftpy2 alone: what the quick start's service is without any library for serving.

Its engine is behind a lock and has all cores; without the lock each request's thread runs one of
as many as there are cores, which is the first thing that its authors would try.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

from interfaces.peers import Setup
from peers.classifier import Classifier, announce
from peers.thrift_service import serve


def main() -> None:
    """Serve."""
    setup = Setup.from_variable()
    announce(setup, "thriftpy2")
    lock: AbstractContextManager[object] = nullcontext()
    if setup.options["lock"]:
        lock = threading.Lock()
        classifier = Classifier(setup, threads=setup.cores)
    else:
        classifier = Classifier(setup, parallel=setup.cores)

    def classify(data: bytes) -> tuple[str, float]:
        pixels = classifier.pixels(data)
        with lock:
            return classifier.infer([pixels])[0]

    serve(setup, classify)


if __name__ == "__main__":
    main()
