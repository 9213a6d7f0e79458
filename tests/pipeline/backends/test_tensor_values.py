"""Operators on the values of a tensor, against torch itself."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import PipelineConfigError, pipe


def run_one(data: Any, **extra: Any) -> dict[str, Any]:
    settings = {key: extra.pop(key) for key in ("backend", "tensor") if key in extra}
    item = {"data": data, **extra}
    with pipe({"node": settings}) as run:
        run(item)
    return item


SCORES = torch.tensor([[0.5, 2.0, -1.0], [3.0, 0.0, 1.0]])


def test_the_largest_along_the_last_dimension() -> None:
    assert run_one(SCORES, backend="ArgMaxTensor")["result"].tolist() == [1, 0]


def test_of_one_row_class_and_score_too() -> None:
    item = run_one(SCORES[:1], backend="SoftmaxArgMaxTensor")
    assert item["result"].tolist() == [1]
    assert item["class"] == 1
    assert item["score"] == pytest.approx(float(SCORES[0].softmax(0)[1]))
    many = run_one(SCORES, backend="SoftmaxArgMaxTensor")
    assert many["result"].tolist() == [1, 0]
    assert "score" not in many


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "table.pt"
    torch.save(torch.arange(12.0).reshape(4, 3), path)
    return str(path)


def test_rows_of_a_file(table: str) -> None:
    for backend, shape in (("IndexSelectTensor", (2, 3)), ("EmbeddingTensor", (1, 2, 3))):
        result = run_one(torch.tensor([[3, 0]]), backend=backend, tensor=table)["result"]
        assert tuple(result.shape) == shape
        assert result.reshape(2, 3).tolist() == [[9, 10, 11], [0, 1, 2]]


@pytest.mark.parametrize(
    ("data", "message"),
    [(torch.tensor([4]), "out of range"), (torch.tensor([1.0]), "takes row numbers of int32")],
)
def test_a_row_that_is_not_there_fails_the_item(table: str, data: Any, message: str) -> None:
    assert message in str(run_one(data, backend="IndexSelectTensor", tensor=table)["error"])


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.pt"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(PipelineConfigError, match="has no tensor with rows"):
        pipe({"node": {"backend": "EmbeddingTensor", "tensor": str(path)}})
    with pytest.raises(PipelineConfigError, match="cannot be read as a tensor"):
        pipe({"node": {"backend": "EmbeddingTensor", "tensor": str(tmp_path / "none.pt")}})
    with pytest.raises(PipelineConfigError, match="EmbeddingTensor needs tensor"):
        pipe({"node": {"backend": "EmbeddingTensor"}})


def test_a_list_of_numbers() -> None:
    result = run_one(SCORES, backend="Tensor2Vector")["result"]
    assert result == [0.5, 2.0, -1.0, 3.0, 0.0, 1.0]


def test_print_tensor_logs_small_ones_whole_and_ends_of_large_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = [torch.tensor([1, 2]), torch.arange(100)]
    with caplog.at_level(logging.WARNING):
        item = run_one(data, backend="PrintTensor", request_id="r7")
    assert item["result"] is data
    text = caplog.text
    assert "tensor 0 of request r7: torch.int64 (2,) on cpu: [1, 2]" in text
    assert "tensor 1 of request r7: torch.int64 (100,) on cpu: [0, 1, 2, 3, 4] ... [95," in text
