"""BentoML: worker processes that each accept connections; the body is the image."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType

from interfaces.peers import Setup
from peers.classifier import Classifier, announce

SETUP = Setup.from_variable()
BATCH = int(SETUP.options["batch"])
# Longer than any client waits.
_NO_LIMIT_S = 86_400
Image = Annotated[Path, ContentType("image/jpeg")]


class _Classifying:
    def __init__(self) -> None:
        self._classifier = Classifier(SETUP, max_batch_size=BATCH)

    if BATCH == 1:

        @bentoml.api(route="/")  # type: ignore[untyped-decorator,unused-ignore]
        def classify(self, image: Image, /) -> dict[str, Any]:
            """The best label of one image."""
            label, score = self._classifier.classify(image.read_bytes())
            return {"label": label, "score": score}

    else:

        @bentoml.api(  # type: ignore[untyped-decorator,unused-ignore]
            route="/", batchable=True, max_batch_size=BATCH
        )
        def classify_batch(self, images: list[str], /) -> list[dict[str, Any]]:
            """The best labels of a batch."""
            answers = self._classifier.classify_batch([base64.b64decode(text) for text in images])
            return [{"label": label, "score": score} for label, score in answers]


# Its timeout would count the work, too, and not stop it; each worker counts its own requests.
_LIMIT = {"max_concurrency": 1 + SETUP.queue_items // SETUP.cores} if SETUP.queue_items else {}
Served = bentoml.service(
    workers=SETUP.cores,
    traffic={"timeout": _NO_LIMIT_S, **_LIMIT},
)(_Classifying)


def main() -> None:
    """Serve."""
    announce(SETUP, "bentoml")
    address = ["--host", SETUP.host, "--port", str(SETUP.port)]
    program = [sys.executable, "-m", "bentoml", "serve", "peers.bentoml_server:Served", *address]
    os.execv(program[0], program)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main()
