"""What a request costs the server, in lines of Python; see tests.line_counts."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from idl import inference
from pipeline.handler import create_handler
from service.handlers.handler_settings import HandlerSettings
from service.handlers.null import NullHandler
from tests.line_counts import check, counting, lines_each
from tests.robustness.colour_model import encoded, write_colour_model


@pytest.mark.parametrize(
    ("name", "image"),
    [("null request", b"no image"), ("null request of 100 kB", bytes(100_000))],
)
def test_a_null_request_costs_what_it_cost(serve: Any, name: str, image: bytes) -> None:
    with counting("connection-") as counter:
        client = serve(NullHandler()).client()
        request = [inference.InferenceParams("u", image)]
        lines = lines_each(counter, lambda: client.infer_images(request))
        client.close()
    check(name, lines)


def test_an_image_costs_what_it_cost(serve: Any, tmp_path: Path) -> None:
    """From its bytes to its scores in the connection's thread, but for what the engine does."""
    model = write_colour_model(tmp_path)
    settings = HandlerSettings(
        model=str(model.model),
        mean=(0.0,) * 3,
        std=(255.0,) * 3,
        engine="onnxruntime",
        calibrate="off",
    )
    with counting("connection-") as counter, closing(create_handler(settings)) as handler:
        client = serve(handler).client()
        request = inference.InferenceParams("u", encoded("red", 40, 30))
        lines = lines_each(counter, lambda: client.infer_batch(request))
        client.close()
    check("image through the pipeline's service", lines)
