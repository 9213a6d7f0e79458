"""torchpipe: its nodes decode, resize and batch; the engine is a backend in Python.

It has no engine for a CPU. On a GPU, too, the engine is this project's, so that the schedulers are
compared and not the engines.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from interfaces.peers import Setup
from peers.classifier import Classifier, announce
from peers.thrift_service import serve

_BACKEND = "PeerEngine"


def main() -> None:
    """Serve."""
    setup = Setup.from_variable()
    torchpipe = importlib.import_module("torchpipe")
    torch = importlib.import_module("torch")
    announce(setup, "torchpipe")
    largest = int(setup.options["batch"])
    classifier = Classifier(setup, parallel=setup.workers, max_batch_size=largest)
    # The operators use the thread that they are called in.
    torch.set_num_threads(1)

    class Engine:
        """An instance of the node that infers."""

        def init(self, params: Mapping[str, str], options: object = None) -> None:
            """Nothing: instances share the classifier."""
            del params, options

        def min(self) -> int:
            """Images of the smallest batch."""
            return 1

        def max(self) -> int:
            """Images of the largest batch."""
            return largest

        def forward(self, items: Sequence[Any]) -> None:
            """Infer a batch; each item's data is a tensor of height x width x 3."""
            pixels = [torch.as_tensor(item["data"]).reshape(shape).numpy() for item in items]
            for item, answer in zip(items, classifier.infer(pixels), strict=True):
                item["result"] = answer

    shape = (setup.height, setup.width, 3)
    torchpipe.register(_BACKEND, Engine)
    pipe = torchpipe.pipe(
        {
            "decode": {
                "backend": "S[DecodeMat,ResizeMat,CvtColorMat,Mat2Tensor]",
                "resize_h": str(setup.height),
                "resize_w": str(setup.width),
                "color": "rgb",
                "device": "cpu",
                "instance_num": str(setup.cores),
                "next": "infer",
            },
            "infer": {
                "backend": _BACKEND,
                "instance_num": str(setup.workers),
                "batching_timeout": str(setup.options.get("timeout_ms", 0)),
            },
        }
    )

    def classify(data: bytes) -> tuple[str, float]:
        item = {"data": data}
        pipe(item)
        if "result" not in item:
            raise ValueError("the data is no image that torchpipe decodes")
        answer: Any = item["result"]
        return str(answer[0]), float(answer[1])

    serve(setup, classify)


if __name__ == "__main__":
    main()
