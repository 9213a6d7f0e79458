"""What a request costs the server, in lines of Python; see tests.line_counts."""

from __future__ import annotations

from typing import Any

import pytest

from idl import inference
from service.handlers.null import NullHandler
from tests.line_counts import check, counting, lines_each


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
