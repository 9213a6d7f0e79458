"""Check sets against real servers: what a new release has to answer before it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from cluster.canary import CanaryError, CheckSet, check, read_labels, require_same_classes
from cluster.replica_entry import ReplicaEntry
from service.errors import ConfigurationError
from tests.image_models import save_linear_classifier
from tests.robustness.colour_model import LABELS, SIDE, encoded
from tests.serving import service_here

IMAGES = [
    (f"{label}-{seed}.png", encoded(label, 40, 30, ".png", seed))
    for label in LABELS
    for seed in range(3)
]
# The third of them reads blue as green.
WEIGHTS = {
    "old": np.eye(3),
    "same": np.eye(3) * 2,
    "confused": np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]]),
    "more": np.eye(3, 4),
}


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ReplicaEntry]]:
    folder = tmp_path_factory.mktemp("models")
    entries = {}
    with ExitStack() as running:
        for name, weights in WEIGHTS.items():
            model, labels = folder / f"{name}.onnx", folder / f"{name}.txt"
            save_linear_classifier(model, weights.astype(np.float32) * 10, SIDE)
            labels.write_text("\n".join([*LABELS, "none"][: weights.shape[1]]) + "\n")
            port = running.enter_context(
                service_here(
                    *("--handler", "baseline", "--model", str(model), "--labels", str(labels)),
                    *("--mean", "0", "--std", "255"),
                )
            )
            entries[name] = ReplicaEntry(name, "127.0.0.1", port, "node", 1, name)
        yield entries


def test_the_measure_is_the_running_release(replicas: dict[str, ReplicaEntry]) -> None:
    found = check(replicas["old"], replicas["same"], CheckSet(IMAGES, None, 1.0))
    assert found == "9 of 9 images have the same best label as before (at least 1 have to)"


def test_too_many_other_labels_are_told_with_examples(replicas: dict[str, ReplicaEntry]) -> None:
    with pytest.raises(CanaryError, match=r"6 of 9.*blue-0.png: green instead of blue"):
        check(replicas["old"], replicas["confused"], CheckSet(IMAGES, None, 0.7))
    assert "6 of 9" in check(replicas["old"], replicas["confused"], CheckSet(IMAGES, None, 0.6))


def test_the_measure_is_a_file_of_labels(replicas: dict[str, ReplicaEntry]) -> None:
    """A new model may be right where the running one is wrong."""
    labels = {name: name.partition("-")[0] for name, _ in IMAGES}
    found = check(replicas["confused"], replicas["old"], CheckSet(IMAGES, labels, 1.0))
    assert "9 of 9 images have the label of --canary-labels" in found
    with pytest.raises(CanaryError, match="6 of 9"):
        check(replicas["old"], replicas["confused"], CheckSet(IMAGES, labels, 1.0))


def test_an_image_that_the_running_release_refuses_is_no_measure(
    replicas: dict[str, ReplicaEntry],
) -> None:
    broken = [("cut.png", IMAGES[0][1][:60]), *IMAGES]
    with pytest.raises(CanaryError, match=r"no answer to cut.png"):
        check(replicas["old"], replicas["same"], CheckSet(broken, None, 0.5))
    labels = {name: name.partition("-")[0] for name, _ in broken}
    with pytest.raises(CanaryError, match=r"9 of 10.*cut.png: error: "):
        check(replicas["old"], replicas["same"], CheckSet(broken, labels, 1.0))


def test_another_number_of_classes_is_refused(replicas: dict[str, ReplicaEntry]) -> None:
    require_same_classes(replicas["old"], replicas["confused"])
    with pytest.raises(CanaryError, match="it has 4 classes and the running one 3"):
        require_same_classes(replicas["old"], replicas["more"])


def test_a_replica_that_is_gone_is_no_agreement(replicas: dict[str, ReplicaEntry]) -> None:
    gone = ReplicaEntry("gone", "127.0.0.1", 9, "node", 1, "gone")
    with pytest.raises(CanaryError, match="replica gone does not answer"):
        check(replicas["old"], gone, CheckSet(IMAGES, None, 0.0))


NAMES = ["a.png", "b, c.png"]


def test_labels_are_read(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text('a.png, cat\n\n"b, c.png","tabby, tabby cat"\n')
    assert read_labels(file, NAMES) == {"a.png": "cat", "b, c.png": "tabby, tabby cat"}


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("a.png\n", "line 1 of .* has 1 columns"),
        ("a.png,tabby, tabby cat\n", "a label with commas needs quotes"),
        ("a.pgn,cat\n", "unknown image 'a.pgn'; did you mean 'a.png'"),
        ("a.png,cat\n", "has no label for b, c.png"),
        (b"a.png,\xff\n", "codec can't decode"),
        (None, "No such file"),
    ],
)
def test_labels_that_cannot_be_read(tmp_path: Path, text: str | bytes | None, mistake: str) -> None:
    file = tmp_path / "labels.csv"
    if text is not None:
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigurationError, match=mistake):
        read_labels(file, NAMES)
