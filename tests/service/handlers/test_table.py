"""The table of handlers, the null handler, and the warm-up."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest

from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.handlers.null import NullHandler
from service.handlers.outcomes import Scores
from service.handlers.table import HANDLERS, create_handler
from service.handlers.warm_up import WarmUp, sample_jpeg


def test_an_unknown_handler_gets_the_closest_name() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown handler 'pipelin'; .*'pipeline'"):
        create_handler("pipelin", HandlerSettings())


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HANDLERS, "null", "no_such_package.handler:create_handler")
    with pytest.raises(ConfigurationError, match="'no_such_package', which is not installed"):
        create_handler("null", HandlerSettings())


def test_only_the_chosen_handler_is_imported() -> None:
    """The server itself, and the null handler, need no model library."""
    code = (
        "import sys; from service import cli;"
        "from service.handlers.handler_settings import HandlerSettings;"
        "from service.handlers.table import create_handler;"
        "create_handler('null', HandlerSettings());"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'baseline_trt', 'pipeline'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_null_handler_gives_every_image_the_same_one_hot_scores() -> None:
    handler = create_handler("null", HandlerSettings())
    outcomes = handler.classify([b"a", b"", b"c"], None)
    expected = np.zeros(handler.info().num_classes, dtype=np.float32)
    expected[0] = 1.0
    assert len(outcomes) == 3
    for outcome in outcomes:
        assert isinstance(outcome, Scores)
        assert outcome.probabilities.dtype == np.float32
        assert np.array_equal(outcome.probabilities, expected)
    handler.close()


def test_the_warm_up_image_is_a_real_jpeg() -> None:
    image = cv2.imdecode(np.frombuffer(sample_jpeg(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (240, 320, 3)
    assert image.std() > 20


def test_warming_up_runs_single_images_and_small_lists(scripted: Any) -> None:
    sizes = []
    classify = scripted.classify

    def counting(images: Any, deadline: Any) -> Any:
        sizes.append(len(images))
        return classify(images, deadline)

    scripted.classify = counting
    WarmUp(scripted).run()
    assert min(sizes) == 1
    assert max(sizes) > 1


def test_a_warm_up_that_fails_says_why(scripted: Any) -> None:
    scripted.classify = lambda images, deadline: [
        scripted._outcome(b"invalid") for _ in images if deadline is None
    ]
    with pytest.raises(ConfigurationError, match="warm-up image: no image at all"):
        WarmUp(scripted).run()


def test_warming_up_the_null_handler_works() -> None:
    WarmUp(NullHandler()).run()
