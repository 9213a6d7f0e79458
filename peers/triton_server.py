"""Triton, started by PyTriton: instances of a Python function, each called by one at a time."""

from __future__ import annotations

import signal
import sys
from typing import Any

import numpy as np
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.model_config.common import QueuePolicy
from pytriton.triton import Triton, TritonConfig

from interfaces.peers import Setup
from peers.classifier import Classifier, announce


def main() -> None:
    """Serve."""
    setup = Setup.from_variable()
    announce(setup, "nvidia-pytriton")
    batch = int(setup.options["batch"])
    classifier = Classifier(setup, parallel=setup.cores, max_batch_size=batch)

    def infer(requests: Any) -> list[dict[str, Any]]:
        images = [bytes(row[0]) for request in requests for row in request["image"]]
        answers = iter(classifier.classify_batch(images))
        results = []
        for request in requests:
            own = [next(answers) for _ in request["image"]]
            results.append(
                {
                    "label": np.array([[label.encode()] for label, _ in own]),
                    "score": np.array([[score] for _, score in own], np.float32),
                }
            )
        return results

    config = TritonConfig(
        http_address=setup.host,
        http_port=setup.port,
        allow_grpc=False,
        allow_metrics=False,
        exit_timeout_secs=5,
    )
    policy = QueuePolicy(default_timeout_microseconds=1000 * setup.queue_ms)
    batcher = DynamicBatcher(
        max_queue_delay_microseconds=int(setup.options.get("delay_us", 0)),
        default_queue_policy=policy if setup.queue_ms else None,
    )
    # Without it SIGTERM would end this process and leave Triton's.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Triton(config=config) as triton:
        triton.bind(
            model_name="classifier",
            infer_func=[infer] * setup.cores,
            inputs=[Tensor(name="image", dtype=np.bytes_, shape=(1,))],
            outputs=[
                Tensor(name="label", dtype=np.bytes_, shape=(1,)),
                Tensor(name="score", dtype=np.float32, shape=(1,)),
            ],
            config=ModelConfig(max_batch_size=batch, batcher=batcher),
        )
        triton.serve()


if __name__ == "__main__":
    main()
