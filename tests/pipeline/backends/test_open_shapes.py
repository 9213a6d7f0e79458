"""Models that take images of several sizes, and images with their channels last."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from engine.providers.onnxruntime import OnnxRuntimeContext
from pipeline import PipelineConfigError, pipe
from tests.engines import CPU_ENGINES, INT8_ENGINES

RANGE = {"min": "1x3x4x4", "max": "4x3x16x16"}


@pytest.fixture(scope="module")
def any_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of images of any size: the channels' means, and the image at half its size."""
    # As in an exported network: the weights are of one channel each, so that nothing mixes them.
    kernel = np.full((3, 1, 2, 2), 0.25, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "kernel"], ["half"], strides=[2, 2], group=3),
            helper.make_node("GlobalAveragePool", ["half"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["means"]),
        ],
        "any_size",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "h", "w"])],
        [
            helper.make_tensor_value_info("means", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("half", TensorProto.FLOAT, ["batch", 3, "h2", "w2"]),
        ],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    path = tmp_path_factory.mktemp("models") / "any_size.onnx"
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def node(model: Path, **settings: Any) -> dict[str, Any]:
    return {"m": {"backend": "TensorrtTensor", "model": str(model), "precision": "fp32"} | settings}


def image(height: int, width: int, value: int = 0) -> torch.Tensor:
    """Red = value, green = value + 1, blue = value + 2."""
    channels = torch.tensor([value, value + 1, value + 2], dtype=torch.uint8)
    return channels.view(1, 3, 1, 1).expand(1, 3, height, width)


def means(item: dict[str, Any]) -> list[float]:
    assert "error" not in item, item["error"]
    found: list[float] = item["result"][0].flatten().tolist()
    return [round(value, 3) for value in found]


@pytest.mark.parametrize("normalised", [False, True], ids=["floats", "uint8"])
@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_items_of_one_shape_run_together(any_size: Path, engine: str, normalised: bool) -> None:
    document = node(any_size, **RANGE)
    if normalised:
        document["m"] |= {"mean": "0", "std": "1"}
    sizes = [(4, 6), (16, 16), (8, 8), (4, 6), (10, 4)]
    chosen = random.Random(1)  # noqa: S311 (test data)
    with pipe(document, engine=engine) as run, ThreadPoolExecutor(6) as callers:

        def call(value: int) -> None:
            items = [{"data": image(*chosen.choice(sizes), value)} for value in (value, value + 50)]
            run(items)
            for item, first in zip(items, (value, value + 50), strict=True):
                assert means(item) == [first, first + 1, first + 2]
                half = item["result"][1]
                assert half.shape[2:] == tuple(size // 2 for size in item["data"].shape[2:])
                assert half.shape[0] == 1
                assert half[0, 1].unique().tolist() == [first + 1]

        list(callers.map(call, range(100)))
        assert run.nodes["m"].counts.items == 200


def test_a_batch_is_split_by_shape_and_no_further(
    any_size: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shape that is refused costs only its item."""
    runs: list[tuple[int, ...]] = []
    execute = OnnxRuntimeContext._execute

    def noted(context: OnnxRuntimeContext, rows: int) -> list[torch.Tensor]:
        runs.append((rows, *context._inputs[0].shape[2:]))
        return execute(context, rows)

    monkeypatch.setattr(OnnxRuntimeContext, "_execute", noted)
    items = [{"data": image(*size)} for size in [(4, 4), (8, 8), (4, 4), (20, 4)]]
    document = node(any_size, min="4x3x4x4", max="4x3x16x16", batching_timeout=20_000)
    with pipe(document, engine="onnxruntime") as run:
        run(items)
    assert runs == [(2, 4, 4), (1, 8, 8)]
    assert [means(item) for item in items[:3]] == [[0, 1, 2]] * 3
    assert "input 'image' takes Nx3x4..16x4..16, got 1x3x20x4" in str(items[3]["error"])


@pytest.mark.parametrize(
    ("shapes", "refused"),
    [
        ({"max": "2x3x8x8"}, (4, 4)),
        ({"min": "1x3x8x8", "max": 2}, (4, 4)),
        ({"min": "1x3x8x4", "max": "2x3x8x8"}, (4, 8)),
    ],
)
def test_sizes_where_min_and_max_agree_are_fixed(
    any_size: Path, shapes: dict[str, Any], refused: tuple[int, int]
) -> None:
    items = [{"data": image(8, 8, 7)}, {"data": image(*refused)}]
    with pipe(node(any_size, **shapes)) as run:
        (spec,) = run.nodes["m"].shared.get("engine").inputs
        run(items)
    assert spec.shape[2] == 8
    assert spec.is_open == (shapes["min"] == "1x3x8x4" if "min" in shapes else False)
    assert means(items[0]) == [7, 8, 9]
    assert f"got 1x3x{refused[0]}x{refused[1]}" in str(items[1]["error"])


def test_every_instance_takes_every_shape(any_size: Path) -> None:
    document = node(any_size, min="1x3x4x4;1x3x8x8", max="1x3x8x8;2x3x16x16", instance_num=2)
    items = [{"data": image(side, side, side)} for side in (4, 8, 12, 16) * 5]
    with pipe(document) as run:
        run(items)
        (spec,) = run.nodes["m"].shared.get("engine").inputs
    assert spec.limits == ((3, 3), (4, 16), (4, 16))
    assert [means(item)[0] for item in items] == [4, 8, 12, 16] * 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "'image' float32 N x 3 x h x w has no fixed size"),
        ({"max": "4x1x8x8"}, "max = 4x1x8x8, but one row of the model's input is 3x?x?"),
        ({"max": "4x3x8"}, "max = 4x3x8, but one row of the model's input is 3x?x?"),
        ({"min": "1x3x9x4", "max": "1x3x8x8"}, "min = 1x3x9x4 is more than max = 1x3x8x8"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_at_load(
    any_size: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(PipelineConfigError) as caught:
        pipe(node(any_size, **settings))
    assert words in str(caught.value)


@pytest.mark.parametrize("engine", INT8_ENGINES)
def test_int8_learns_from_the_largest_images(any_size: Path, tmp_path: Path, engine: str) -> None:
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), noise)
    settings = {"precision": "int8", "calibration_images": str(tmp_path)}
    settings |= {"mean": "0", "std": "1"}
    items = [{"data": image(8, 8, 100)}, {"data": image(16, 12, 30)}]
    with pipe(node(any_size, **RANGE, **settings), engine=engine) as run:
        run(items)
    assert means(items[0]) == pytest.approx([100, 101, 102], abs=3)
    assert means(items[1]) == pytest.approx([30, 31, 32], abs=3)


def channels_last(engine_input: torch.Tensor) -> Sequence[Any]:
    """One image in all layouts that are taken; the first is the usual one."""
    rows = engine_input.permute(0, 2, 3, 1).contiguous()
    matrix = rows[0].numpy()
    read_only = matrix.copy()
    read_only.flags.writeable = False
    return [
        engine_input,
        engine_input[0],
        rows,
        rows[0],
        matrix,
        read_only,
        matrix[:, ::-1][:, ::-1],
        matrix.astype(np.float64),
        np.flip(np.flip(matrix, 2).copy(), 2),
        engine_input[0].numpy(),
    ]


@pytest.mark.parametrize("settings", [{}, {"mean": "0", "std": "1"}, RANGE])
@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_channels_may_come_last(any_size: Path, engine: str, settings: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (1, 3, 6, 8), dtype=torch.uint8, generator=generator)
    items = [{"data": data} for data in channels_last(pixels)]
    with pipe(node(any_size, **{"max": "4x3x6x8"} | settings), engine=engine) as run:
        run(items)
    for item in items[1:]:
        assert "error" not in item, item["error"]
        for output, usual in zip(item["result"], items[0]["result"], strict=True):
            assert torch.allclose(output, usual, atol=1e-3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((8, 6, 3), np.uint8), "takes Nx3x6x8, got 1x8x6x3"),
        (torch.zeros(3, 8, 6), "takes Nx3x6x8, got 1x3x8x6"),
        (np.zeros((6, 8), np.uint8), "takes Nx3x6x8, got 6x8"),
        (np.zeros((6, 8, 4), np.uint8), "takes Nx3x6x8, got 1x6x8x4"),
        (np.array([["a"]]), "expected numbers, got an array of dtype <U1"),
        (b"bytes", "expected a tensor, such as Mat2Tensor gives, got bytes"),
    ],
)
def test_other_layouts_are_refused(any_size: Path, data: Any, words: str) -> None:
    """torchpipe would turn the first two on their side without a word."""
    items = [{"data": data}, {"data": image(6, 8, 1)}]
    with pipe(node(any_size, max="4x3x6x8")) as run:
        run(items)
    assert words in str(items[0]["error"])
    assert means(items[1]) == [1, 2, 3]


def test_a_matrix_goes_straight_to_the_engine(any_size: Path) -> None:
    """`S[DecodeMat,cvtColorMat]` and the engine, without Mat2Tensor."""
    matrix = np.full((8, 8, 3), (10, 20, 30), np.uint8)
    document = {
        "decode": {"backend": "S[DecodeMat,cvtColorMat]", "color": "rgb", "next": "m"},
        **node(any_size, **RANGE),
    }
    item = {"data": cv2.imencode(".png", matrix)[1].tobytes()}
    with pipe(document) as run:
        run(item)
    assert means(item) == [30, 20, 10]
