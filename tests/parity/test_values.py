"""Values of every kind, and the operators on tensors that both have on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.parity.messages import Call, Case, Outcome
from tests.parity.values import to_plain

pytestmark = pytest.mark.timeout(1800)

_MATRIX = np.random.default_rng(seed=1).random((2, 5), dtype=np.float32)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    -5,
    2**40,
    1.5,
    float("inf"),
    "",
    "größer",
    b"\x00\xff",
    b"",
    [],
    [1, "a", [2.5]],
    {"a": 1},
    {},
    _MATRIX,
    np.array([True, False]),
    np.array([1, 2], dtype=np.float16),
    np.array(3.5, dtype=np.float32),
)


@pytest.mark.parametrize("backend", ["Identity", "ParityNote", "S[Identity,ParityNote]"])
def test_values_come_through_unchanged(agree: Callable[[Case], Outcome], backend: str) -> None:
    values = [to_plain(value) for value in _VALUES]
    calls = [Call([{"data": value, "mine": value}]) for value in values]

    outcome = agree(Case({"@only": {"backend": backend}}, calls))

    assert [answer.items[0]["result"] for answer in outcome.answers] == values


@pytest.mark.parametrize(
    "backend",
    [
        "ArgMaxTensor",
        "ContiguousTensor",
        "FixTensor",
        "PrintTensor",
        "SetTensorRequestSize",
        "SoftmaxArgMaxTensor",
        "S[SetTensorRequestSize,SplitTensor]",
    ],
)
def test_operators_on_tensors_give_the_same(agree: Callable[[Case], Outcome], backend: str) -> None:
    whole = np.arange(12, dtype=np.int32).reshape(3, 4)
    data: list[np.ndarray[Any, Any]] = [_MATRIX, _MATRIX * -3, whole, np.zeros((2, 1))]
    if "Softmax" in backend:
        data = [one for one in data if one.dtype.kind == "f"]
    calls = [Call([{"data": to_plain(one)}]) for one in data]

    outcome = agree(Case({"@only": {"backend": backend}}, calls))

    assert all("result" in answer.items[0] for answer in outcome.answers)


def test_no_tensor_fails(agree: Callable[[Case], Outcome]) -> None:
    outcome = agree(Case({"@only": {"backend": "ArgMaxTensor"}}, [Call([{"data": 7}])]))
    assert "result" not in outcome.answers[0].items[0]
