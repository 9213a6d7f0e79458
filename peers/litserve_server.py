"""LitServe: FastAPI in front of worker processes; the image is base64 in JSON, as in its docs."""

from __future__ import annotations

import base64
from typing import Any

import litserve

from interfaces.peers import Setup
from peers.classifier import Classifier, announce

_BATCH_TIMEOUT_S = 0.001


class Api(litserve.LitAPI):  # type: ignore[misc]
    """Decodes and infers in a worker process."""

    def setup(self, device: str) -> None:
        """Load the model."""
        del device
        served = Setup.from_variable()
        self._classifier = Classifier(served, max_batch_size=int(served.options["batch"]))

    # LitServe makes a query parameter of what it finds annotated with anything of its own choice.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """The encoded image."""
        return base64.b64decode(request["image"])

    def predict(self, x: Any) -> Any:
        """One image, or a list of them where batches are on."""
        if isinstance(x, list):
            return self._classifier.classify_batch(x)
        return self._classifier.classify(x)

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """What `predict` gets of a batch."""
        return inputs

    def unbatch(self, output: list[tuple[str, float]]) -> list[tuple[str, float]]:
        """What `encode_response` gets, one after the other."""
        return output

    def encode_response(self, output: tuple[str, float]) -> dict[str, Any]:
        """The answer in JSON."""
        label, score = output
        return {"label": label, "score": score}


def main() -> None:
    """Serve."""
    setup = Setup.from_variable()
    announce(setup, "litserve")
    server = litserve.LitServer(
        Api(
            max_batch_size=int(setup.options["batch"]), batch_timeout=_BATCH_TIMEOUT_S, api_path="/"
        ),
        accelerator="cuda" if setup.on_gpu else "cpu",
        devices=1,
        workers_per_device=setup.workers,
        timeout=setup.queue_ms / 1000 or False,
        fast_queue=bool(setup.options.get("fast_queue")),
    )
    server.run(host=setup.host, port=setup.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
