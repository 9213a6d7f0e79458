"""What an item costs the runtime, in lines of Python; see tests.line_counts."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline import pipe, register_backend
from tests.line_counts import check, counting, lines_each

JPEG = cv2.imencode(".jpg", np.zeros((60, 80, 3), np.uint8))[1].tobytes()
PREPROCESSING = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"


@register_backend(name="TestHandsOn")
class HandsOn:
    def forward(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            item["result"] = item["data"]


def chain(length: int) -> dict[str, Any]:
    names = [f"node{number}" for number in range(length)]
    nodes: dict[str, Any] = {name: {"backend": "TestHandsOn"} for name in names}
    for name, following in pairwise(names):
        nodes[name]["next"] = following
    return nodes


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("item through one node", chain(1)),
        ("item through three nodes", chain(3)),
        (
            "image through preprocessing",
            {"cpu": {"backend": PREPROCESSING, "resize_h": 24, "resize_w": 24}},
        ),
    ],
)
def test_an_item_costs_what_it_cost(name: str, nodes: dict[str, Any]) -> None:
    lines: list[float] = []

    def call(run: Any) -> None:
        lines.append(lines_each(counter, lambda: run({"data": JPEG})))

    with counting("") as counter, pipe(nodes) as run:
        caller = threading.Thread(target=call, args=(run,))
        caller.start()
        caller.join()
    check(name, lines[0])
