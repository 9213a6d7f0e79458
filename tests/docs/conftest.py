"""A folder with what the documentation's commands name, and a server for its clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.docs.blocks import ROOT, blocks
from tests.image_models import save_linear_classifier
from tests.robustness.colour_model import encoded
from tests.serving import service_here

_MODELS = ("my.onnx", "model.onnx", "my_classifier.onnx", "resnet50.onnx")
_CLASSES = 1000
_PACKAGED = re.compile(r'(model = |open_model\()"(?:efficientnet_lite0|resnet50)"')


@dataclass(frozen=True)
class Workspace:
    """Where the commands run.

    Attributes:
        folder: with photos, a model, and the TOML files of the quick start.
        port: of a server that serves the model.
    """

    folder: Path
    port: int

    def adapted(self, text: str) -> str:
        """A text that names the tiny model in place of packaged ones, and the server's port."""
        text = _PACKAGED.sub(lambda found: f'{found[1]}"{self.folder / "my.onnx"}"', text)
        return text.replace("Client()", f"Client(port={self.port})").replace("8095", str(self.port))


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("docs")
    weights = np.random.default_rng(0).normal(size=(3, _CLASSES)).astype(np.float32)
    for model in _MODELS:
        save_linear_classifier(folder / model, weights, 224)
    for place in ("photos", "my_photos"):
        (folder / place).mkdir()
        for label in ("red", "green", "blue"):
            (folder / place / f"{label}.jpg").write_bytes(encoded(label, 90, 60))
    for name in ("photo.jpg", "a.jpg", "b.png", "c.jpg"):
        (folder / name).write_bytes(encoded("red", 90, 60, Path(name).suffix))
    for name in ("labels.txt", "my_labels.txt"):
        (folder / name).write_text("".join(f"class {n}\n" for n in range(_CLASSES)))
    with service_here("--handler", "pipeline", "--model", str(folder / "my.onnx")) as port:
        made = Workspace(folder, port)
        first, second = [b.text for b in blocks("docs/quick-start.md") if b.language == "toml"]
        quick = made.adapted(first)
        mine = quick.replace("classifier", "resnet50")
        for name, text in (("quick", quick), ("my", mine), ("fast", made.adapted(second))):
            (folder / f"{name}.toml").write_text(text)
        shipped = Path("pipeline/configs/resnet50_cpu.toml")
        (folder / shipped.parent).mkdir(parents=True)
        (folder / shipped).write_text(made.adapted((ROOT / shipped).read_text("utf-8")))
        (server,) = [b.text for b in blocks("docs/operations.md") if b.language == "toml"]
        (folder / "server.toml").write_text(server)
        yield made
