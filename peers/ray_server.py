"""Ray Serve: a proxy process in front of replicas; the body is the image."""

from __future__ import annotations

import signal
import sys
import tempfile

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

from interfaces.peers import Setup
from peers.classifier import Classifier, announce

SETUP = Setup.from_variable()
BATCH = int(SETUP.options["batch"])
_BATCH_WAIT_S = 0.001
_NO_LIMIT = -1


def _answer(found: tuple[str, float]) -> JSONResponse:
    """A response with its length in its head: of a dictionary Serve would make chunks."""
    label, score = found
    return JSONResponse({"label": label, "score": score})


class Replica:
    """Decodes and infers, one image after the other."""

    def __init__(self) -> None:
        self._classifier = Classifier(SETUP, max_batch_size=BATCH)

    async def __call__(self, request: Request) -> JSONResponse:
        """The best label of one image."""
        return _answer(self._classifier.classify(await request.body()))


class BatchingReplica(Replica):
    """The same in batches."""

    async def __call__(self, request: Request) -> JSONResponse:
        """The best label of one image."""
        return _answer(await self._infer(await request.body()))

    @serve.batch(  # type: ignore[untyped-decorator,unused-ignore]
        max_batch_size=BATCH, batch_wait_timeout_s=_BATCH_WAIT_S
    )
    async def _infer(self, images: list[bytes]) -> list[tuple[str, float]]:
        return self._classifier.classify_batch(images)


def main() -> None:
    """Serve."""
    announce(SETUP, "ray")
    # Its sessions and their logs would stay in /tmp.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=SETUP.cores, include_dashboard=False, log_to_driver=False, _temp_dir=folder
        )
        try:
            _serve()
        finally:
            serve.shutdown()
            ray.shutdown()


def _serve() -> None:
    serve.start(http_options={"host": SETUP.host, "port": SETUP.port})
    deployment = serve.deployment(
        Replica if BATCH == 1 else BatchingReplica,
        num_replicas=SETUP.cores,
        max_ongoing_requests=2 * BATCH,
        max_queued_requests=SETUP.queue_items or _NO_LIMIT,
        # Serve's own actors take parts of a core; the replicas get what is there.
        ray_actor_options={"num_cpus": 0},
    )
    serve.run(deployment.bind())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
