"""What the two runtimes do differently on purpose: a case each, and what both sides do with it.

The table in docs/coming-from-torchpipe.md has the reasons, under the same names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from tests.parity.messages import LIST, SINGLE, Call, Case, PlainItem
from tests.parity.values import to_plain


@dataclass(frozen=True)
class Expected:
    """What a side does.

    Attributes:
        items: what is in the item of each call, or in each item of its one call, among others.
        absent: the keys that none of the items has.
        raised: how the exception of the last call begins, if it raises.
        refused: how the exception begins with which the pipe is refused.
    """

    items: list[PlainItem] = field(default_factory=list)
    absent: tuple[str, ...] = ()
    raised: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        name: its row in the table of the documentation.
        case: what shows it.
        theirs: what torchpipe does.
        ours: what this project does.
    """

    name: str
    case: Case
    theirs: Expected
    ours: Expected


def _node(backend: str, **settings: Any) -> dict[str, Any]:
    return {"backend": backend, **settings}


def _one(document: dict[str, Any], item: PlainItem, kind: str = SINGLE) -> Case:
    return Case(document, [Call([item], kind)])


def _image(extension: str) -> PlainItem:
    """A file with the two pixels (1, 2, 3) and (4, 5, 6)."""
    pixels = np.arange(1, 7, dtype=np.uint8).reshape(1, 2, 3)
    return {"data": to_plain(cv2.imencode(extension, pixels)[1].tobytes())}


_DATA = {"data": 4}
_ROW = to_plain(np.array([[0, 1]], dtype=np.float32))
_SECOND = to_plain(np.array([1], dtype=np.int64))
_PIXELS = to_plain(np.arange(1, 7, dtype=np.uint8).reshape(1, 3, 1, 2))
_ADDED = "node_name/stage_times_ms"
_FORK = {
    "@first": _node("ParityAdd", next="@left,@right"),
    "@left": _node("ParityKeys", next="@end", ignored=_ADDED),
    "@right": _node("ParityAdd", next="@end"),
    "@end": _node("ParityCombine", map="@left[result:seen],@right[result:data]"),
}
_MAPPED = {
    "@first": _node("ParityAdd", next="@second"),
    "@second": _node("ParityAdd", map="@first[result:data]"),
}

DIFFERENCES = (
    Difference(
        "a bad item of a list",
        Case({"@a": _node("ParityFail")}, [Call([{"data": n} for n in (3, 4, 5)], LIST)]),
        Expected([{"result": 4}, {}, {}], raised="ValueError: 4 is at fault"),
        Expected([{"result": 4}, {}, {"result": 6}], raised="ValueError: 4 is at fault"),
    ),
    Difference(
        "a backend without a result",
        _one({"@a": _node("S[ParityNoResult,ParityAdd]")}, _DATA),
        Expected([{}], ("result",), raised="RuntimeError: Sequential: no result"),
        Expected([{"error": {"object": "NodeError"}}], ("result",)),
    ),
    Difference(
        "an exception of a class of yours",
        _one({"@a": _node("ParityRaise", error="OwnError")}, _DATA),
        Expected([{}], ("result",), raised="RuntimeError: of a backend"),
        Expected([{}], ("result",), raised="OwnError: of a backend"),
    ),
    Difference(
        "a Python backend without `max`",
        Case({"@a": _node("ParityBatchSize")}, [Call([{"data": n} for n in (3, 4, 5)], LIST)]),
        Expected([{"result": 3}] * 3),
        Expected([{"result": 1}] * 3),
    ),
    Difference(
        "`(or)` behind a backend that raises",
        _one({"@a": _node("S[ParityFail,(or)ParityMultiply]")}, _DATA),
        Expected([{}], ("result",), raised="ValueError: 4 is at fault"),
        Expected([{"result": 12}]),
    ),
    Difference(
        "other filters in a sequence",
        _one({"@a": _node("S[ParityAdd,(Skip)ParityMultiply]")}, _DATA),
        Expected([{"result": 15}]),
        Expected([{"result": 5}]),
    ),
    Difference(
        "the caller's `data`",
        _one({"@a": _node("S[ParityAdd,ParityAdd]")}, _DATA),
        Expected([{"data": 5, "result": 6}]),
        Expected([{"data": 4, "result": 6}]),
    ),
    Difference(
        "the caller's other keys",
        _one(_MAPPED, {**_DATA, "mine": "m"}, LIST),
        Expected([{"result": 6}], ("mine",)),
        Expected([{"result": 6, "mine": "m"}]),
    ),
    Difference(
        "keys that a call adds",
        _one(_MAPPED, _DATA),
        Expected([{"node_name": "@second"}], ("stage_times_ms",)),
        Expected([{}], ("node_name",)),
    ),
    Difference(
        "a fork without a map",
        _one(_FORK, {**_DATA, "mine": "m"}),
        Expected([{"seen": "data"}]),
        Expected([{"seen": "data,mine"}]),
    ),
    Difference(
        "several ends",
        _one(
            {
                "@a": _node("ParityAdd", next="@left,@right"),
                "@left": _node("ParityAdd"),
                "@right": _node("ParityAdd"),
            },
            _DATA,
        ),
        Expected([{"result": 6}], ("results",)),
        Expected([{"results": {"map": {"@left": 6, "@right": 6}}}], ("result",)),
    ),
    Difference(
        "settings in an expression for a Python backend",
        _one({"@a": _node("ParityAdd(term=5)")}, _DATA),
        Expected([{"result": 5}]),
        Expected([{"result": 9}]),
    ),
    Difference(
        "settings that a Python backend gets",
        _one({"@a": _node("ParitySettings", flag=True)}, _DATA),
        Expected(
            [
                {
                    "result": [
                        "BackgroundThread::dependency=Reflect",
                        "InstancesRegister::dependency=BackgroundThread",
                        "_independent_index=0",
                        "backend=ParitySettings",
                        "flag=True",
                        "node_name=@a",
                    ]
                }
            ]
        ),
        Expected([{"result": ["backend=ParitySettings", "flag=true", "node_name=@a"]}]),
    ),
    Difference(
        "`next` of a single node",
        _one({"@a": _node("ParityAdd", next="@b")}, _DATA),
        Expected([{"result": 5}]),
        Expected(refused="ConfigError: node '@a' names next = '@b', which is no node"),
    ),
    Difference(
        "a sequence in a sequence, alone",
        _one({"@a": _node("S[S[ParityAdd]]")}, _DATA),
        Expected(refused="RuntimeError"),
        Expected([{"result": 5}]),
    ),
    Difference(
        "the form of a tensor",
        _one({"@a": _node("S[DecodeMat,Mat2Tensor]", device="cpu")}, _image(".png")),
        Expected([{"result": {"array": ["uint8", [1, 2, 3], "010203040506"]}}]),
        Expected([{"result": {"array": ["uint8", [1, 3, 1, 2], "010402050306"]}}]),
    ),
    Difference(
        "the device of a tensor",
        _one({"@a": _node("S[DecodeMat,Mat2Tensor]", data_format="hwc")}, _image(".png")),
        Expected([{}], ("result",), raised="RuntimeError: PyTorch is not linked with support"),
        Expected([{"result": {"array": ["uint8", [1, 2, 3], "010203040506"]}}]),
    ),
    Difference(
        "WebP images",
        _one({"@a": _node("S[DecodeMat,ParityKeys]", ignored=_ADDED)}, _image(".webp")),
        Expected([{}], ("result",), raised="RuntimeError: Sequential: no result in DecodeMat"),
        Expected([{"result": "color,data"}]),
    ),
    Difference(
        "`CatTensor`",
        _one({"@a": _node("CatTensor")}, {"data": _ROW}),
        Expected([{"result": _ROW, "request_size": 1}]),
        Expected([{"result": _ROW}], ("request_size",)),
    ),
    Difference(
        "`SoftmaxArgMaxTensor`",
        _one({"@a": _node("SoftmaxArgMaxTensor")}, {"data": _ROW}),
        Expected([{"result": _SECOND}], ("class", "score")),
        Expected([{"result": _SECOND, "class": 1}]),
    ),
    Difference(
        "operators on tensors of a GPU",
        _one({"@a": _node("CvtColorTensor", color="rgb")}, {"data": _PIXELS, "color": "bgr"}),
        Expected([{"result": {"array": ["uint8", [1, 3, 1, 2], "050603040102"]}}]),
        Expected(refused="ConfigError: [@a] CvtColorTensor needs an NVIDIA GPU"),
    ),
    Difference(
        "an unknown backend",
        _one({"@a": _node("ParityAd")}, _DATA),
        Expected(refused="RuntimeError: Assertion failed:"),
        Expected(refused="ConfigError: [@a] backend: unknown backend 'ParityAd'; did you mean"),
    ),
)
