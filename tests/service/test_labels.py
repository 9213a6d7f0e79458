"""Label files, and the order of the best classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ConfigurationError
from service.labels import Labels, top_classes


def test_a_model_of_1000_classes_has_the_imagenet_names() -> None:
    names = Labels.load(None, 1000).names
    assert len(names) == 1000
    assert (names[0], names[1], names[285]) == ("tench", "goldfish", "Egyptian cat")


def test_another_number_of_classes_gets_numbered_names_and_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert Labels.load(None, 3).names == ["class_0", "class_1", "class_2"]
    (record,) = caplog.records
    assert "3 classes" in record.getMessage()
    assert "--labels" in record.getMessage()


def test_a_file_holds_one_label_a_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffchat\r\nétoile\r\nice cream\r\n".encode())
    assert Labels.load(str(path), 3).names == ["chat", "étoile", "ice cream"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a\nb\n", "has 2 labels, the model has 3 classes"),
        (b"a\n\nb\n", "line 2 is empty"),
        (b"", "is empty"),
        (b"\xff\xfe\n", "not UTF-8"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=told):
        Labels.load(str(path), 3)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file"):
        Labels.load(str(tmp_path / "none.txt"), 3)


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), min_size=1, max_size=30),
    st.data(),
)
def test_the_best_classes_are_in_order_and_ties_go_to_the_lower_id(
    values: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(values)))
    expected = sorted(range(len(values)), key=lambda n: (-np.float32(values[n]), n))[:count]
    assert top_classes(np.array(values, dtype=np.float32), count) == expected
