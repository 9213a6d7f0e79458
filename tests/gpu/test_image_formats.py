"""What models want of their image, in the torch engine's graphs on the GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.handlers.handler_settings import HandlerSettings
from service.handlers.outcomes import Scores
from service.handlers.table import create_handler
from tests.image_models import FORMATS, IMAGE, save_means


@pytest.mark.parametrize("decode", ["cpu", "gpu"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_way_to_take_an_image(name: str, decode: str, tmp_path: Path) -> None:
    saved, settings, expected = FORMATS[name]
    model = str(save_means(tmp_path / "m.onnx", **saved))
    own = {"engine": "torch", "precision": "fp32", "output_activation": "none", "decode": decode}
    handler = create_handler("pipeline", HandlerSettings(model=model, **own, **settings))
    (outcome,) = handler.classify([IMAGE], None)
    handler.close()
    assert isinstance(outcome, Scores), outcome
    assert outcome.probabilities == pytest.approx(expected, abs=0.1)
