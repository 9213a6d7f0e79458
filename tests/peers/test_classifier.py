"""What all peers serve: the same answers from every engine, in one thread and in several."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.serving_graph import main as write_graph
from interfaces.peers import Setup
from loadtest.measure.null_model import write_null_model
from peers.classifier import Classifier

COLOURS = {"class_0": (20, 20, 200), "class_1": (20, 200, 20), "class_2": (200, 20, 20)}
"""By which of red, green and blue there is most of; the colours in OpenCV's order."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The null model."""
    return write_null_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def setup(model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Setup:
    """What a peer is told to serve that model with an engine."""
    graph, labels = tmp_path / "graph.onnx", tmp_path / "labels.txt"
    assert write_graph([str(model), "--output", str(graph)]) == 0
    labels.write_text("of another model\n")
    where = ("127.0.0.1", 8095, str(graph), str(model), 224, 224, False)
    return Setup(*where, request.param, "fp32", str(labels))


def _image(colour: tuple[int, int, int]) -> bytes:
    encoded: bytes = cv2.imencode(".png", np.full((300, 400, 3), colour, np.uint8))[1].tobytes()
    return encoded


@pytest.mark.parametrize("setup", ["onnxruntime", "openvino", "torch"], indirect=True)
def test_every_engine_names_the_colour_of_each_image_of_a_batch(setup: Setup) -> None:
    classifier = Classifier(setup, parallel=2, max_batch_size=3)
    images = [_image(colour) for colour in COLOURS.values()]
    assert [label for label, _ in classifier.classify_batch(images)] == [*COLOURS]
    # More threads than there are runs at a time.
    with ThreadPoolExecutor(6) as threads:
        answers = [*threads.map(classifier.classify, images * 20)]
    assert [label for label, _ in answers] == [*COLOURS] * 20
    assert min(score for _, score in answers) > 0.99


@pytest.mark.parametrize("setup", ["onnxruntime"], indirect=True)
@pytest.mark.parametrize("data", [b"", b"no image"])
def test_what_is_no_image_is_refused(data: bytes, setup: Setup) -> None:
    with pytest.raises(ValueError, match="no image"):
        Classifier(setup).classify(data)
