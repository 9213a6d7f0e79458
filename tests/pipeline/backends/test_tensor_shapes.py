"""Operators on the shape of a tensor, against torch itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline import PipelineConfigError, pipe


def run_one(data: Any, **settings: Any) -> dict[str, Any]:
    item = {"data": data}
    with pipe({"node": settings}) as run:
        run(item)
    return item


HWC = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3)


@pytest.mark.parametrize(
    ("settings", "data", "expected"),
    [
        ({"backend": "PermuteTensor", "dims": "2,0,1"}, HWC, HWC.permute(2, 0, 1)),
        ({"backend": "PermuteTensor", "dims": [-1, 0, 1]}, HWC, HWC.permute(2, 0, 1)),
        ({"backend": "UnsqueezeTensor"}, HWC, HWC[None]),
        ({"backend": "UnsqueezeTensor", "dim": -1}, HWC, HWC[..., None]),
        ({"backend": "SqueezeTensor"}, HWC[None, :, None], HWC),
        ({"backend": "SqueezeTensor", "dim": 0}, HWC[None, :, None], HWC[:, None]),
        ({"backend": "ContiguousTensor"}, HWC.permute(2, 1, 0), HWC.permute(2, 1, 0)),
        ({"backend": "FloatTensor"}, HWC, HWC.float()),
        ({"backend": "NCHWTensor"}, HWC, HWC.permute(2, 0, 1)[None]),
        ({"backend": "NCHWTensor"}, HWC[None], HWC.permute(2, 0, 1)[None]),
        ({"backend": "FloatNCHWTensor"}, HWC, HWC.permute(2, 0, 1)[None].float()),
        ({"backend": "LastBatchTensor"}, HWC, HWC[1:]),
        ({"backend": "CatTensor"}, [HWC, HWC], torch.cat([HWC, HWC])),
        ({"backend": "CatTensor"}, HWC, HWC),
        ({"backend": "FloatTensor"}, HWC.numpy(), HWC.float()),
        ({"backend": "FloatTensor"}, HWC.numpy()[::-1], HWC.flip(0).float()),
    ],
)
def test_one_tensor(settings: dict[str, Any], data: Any, expected: torch.Tensor) -> None:
    result = run_one(data, **settings)["result"]
    assert result.dtype == expected.dtype
    assert torch.equal(result, expected)
    if settings["backend"] in ("ContiguousTensor", "FloatNCHWTensor"):
        assert result.is_contiguous()


def test_of_a_list_each() -> None:
    result = run_one([HWC, HWC[:1]], backend="UnsqueezeTensor")["result"]
    assert [tuple(one.shape) for one in result] == [(1, 2, 4, 3), (1, 1, 4, 3)]


def test_the_rows_of_an_item_stay_its_own() -> None:
    assert torch.equal(run_one(HWC, backend="SplitTensor")["result"], HWC)
    joined = run_one([HWC, HWC[:1]], backend="S[CatTensor,SplitTensor]")["result"]
    assert torch.equal(joined, torch.cat([HWC, HWC[:1]]))


@pytest.mark.parametrize(
    ("settings", "data", "message"),
    [
        (
            {"backend": "PermuteTensor", "dims": "0,1"},
            HWC,
            "does not name each of the 3 dimensions",
        ),
        ({"backend": "PermuteTensor", "dims": "0,1,-3"}, HWC, "does not name each of the 3"),
        ({"backend": "SqueezeTensor", "dim": 1}, HWC, "has not the size 1"),
        ({"backend": "SqueezeTensor", "dim": 9}, HWC, "range"),
        ({"backend": "NCHWTensor"}, HWC.permute(2, 0, 1)[:, :, :2], "with 1, 3 or 4 channels"),
        ({"backend": "LastBatchTensor"}, HWC[:0], "at least one row"),
        ({"backend": "CatTensor"}, [], "an empty list"),
        ({"backend": "CatTensor"}, [HWC, HWC[0]], "Tensors must have same number"),
        ({"backend": "SplitTensor"}, torch.tensor(1), "has no rows"),
        (
            {"backend": "FloatTensor"},
            "text",
            "FloatTensor takes a tensor or a list of tensors, got",
        ),
        ({"backend": "FloatTensor"}, [HWC, None], "got NoneType"),
    ],
)
def test_what_does_not_fit_fails_its_item_alone(
    settings: dict[str, Any], data: Any, message: str
) -> None:
    items = [{"data": data}, {"data": HWC[None] if "dims" not in settings else HWC}]
    with pipe({"node": settings}) as run:
        run(items)
    assert message in str(items[0]["error"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "PermuteTensor"}, "PermuteTensor needs dims"),
        (
            {"backend": "PermuteTensor", "dims": "0,0"},
            "dims = '0,0': expected numbers of dimensions",
        ),
        ({"backend": "UnsqueezeTensor", "dim": "x"}, "dim = 'x': expected the number of a dim"),
        ({"backend": "UnsqueezeTensor", "dim": 64}, "dim = 64: expected the number of a dimension"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineConfigError, match=message):
        pipe({"node": settings})
