"""The torch engine on the GPU, compared with the one on the CPU."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from engine.errors import EngineError
from engine.normalization import IMAGENET_NORMALIZATION
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.providers.torch import TorchEngine
from engine.providers.torch_cuda import TorchCudaEngine
from engine.registry import choose_engine
from engine.zoo import open_model
from service.images.decoding import decode_bgr


@pytest.fixture(scope="module", params=["resnet50", "efficientnet_lite0"])
def model(request: pytest.FixtureRequest) -> OnnxModel:
    opened = open_model(request.param)
    return opened.with_uint8_input(opened.declared_normalization or IMAGENET_NORMALIZATION)


@pytest.fixture(scope="module")
def rows(photographs: list[bytes]) -> list[torch.Tensor]:
    matrices = [cv2.resize(decode_bgr(data), (224, 224))[:, :, ::-1] for data in photographs]
    return [torch.from_numpy(m.copy()).permute(2, 0, 1)[None] for m in matrices]


@pytest.fixture(scope="module")
def wanted(model: OnnxModel, rows: list[torch.Tensor]) -> torch.Tensor:
    context = TorchEngine(model, EngineOptions(max_batch_size=len(rows))).create_context()
    return context.run([(row,) for row in rows])[0].clone()


def probabilities(scores: torch.Tensor, model: OnnxModel) -> torch.Tensor:
    return scores if model.outputs_probabilities else scores.softmax(1)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-3), ("fp16", 0.03), ("bf16", 0.2)]
)
def test_it_gives_what_the_cpu_gives(
    model: OnnxModel,
    rows: list[torch.Tensor],
    wanted: torch.Tensor,
    precision: str,
    tolerance: float,
) -> None:
    engine = TorchCudaEngine(model, EngineOptions(precision, max_batch_size=len(rows)))
    context = engine.create_context()
    for size in range(1, len(rows) + 1):
        for place in ("cpu", "cuda"):
            got = context.run([(row.to(place),) for row in rows[:size]])[0]
            assert not got.is_cuda
            assert got.shape == (size, wanted.shape[1])
            assert got.dtype == torch.float32
            exact = probabilities(wanted[:size], model)
            assert (probabilities(got, model) - exact).abs().max() < tolerance
            # The made-up ResNet-50 sees two classes 0.0004 apart in the flower: either will do.
            lost = exact.amax(1) - exact.gather(1, got.argmax(1, keepdim=True))[:, 0]
            assert precision == "bf16" or lost.max() < 1e-3


def test_rows_on_both_sides_and_several_rows_an_item(rows: list[torch.Tensor]) -> None:
    model = open_model("resnet50").with_uint8_input(IMAGENET_NORMALIZATION)
    context = TorchCudaEngine(model, EngineOptions("fp16", max_batch_size=8)).create_context()
    apart = context.run([(row,) for row in rows])[0].clone()
    mixed = [rows[0], rows[1].cuda(), *rows[2:]]
    torch.testing.assert_close(context.run([(row,) for row in mixed])[0], apart)
    together = context.run([(torch.cat(rows[:4]),), (torch.cat(rows[4:]).cuda(),)])[0]
    torch.testing.assert_close(together, apart)
    with pytest.raises(EngineError, match="at most 8 rows, got 9"):
        context.run([(torch.cat([*rows, *rows[:3]]),)])


def _largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.softmax(-1) - b.softmax(-1)).abs().max())


def test_contexts_run_side_by_side(rows: list[torch.Tensor]) -> None:
    """One a thread, with no lock: every answer is the one that the row gets alone."""
    model = open_model("resnet50").with_uint8_input(IMAGENET_NORMALIZATION)
    engine = TorchCudaEngine(model, EngineOptions("fp16", max_batch_size=4, num_contexts=3))
    alone = [engine.create_context().run([(row,)])[0].clone() for row in rows]
    apart = min(_largest_difference(a, b) for a, b in itertools.combinations(alone, 2))
    start = threading.Barrier(3)

    def work(number: int) -> int:
        context = engine.create_context()
        start.wait()
        wrong = 0
        for step in range(150):
            index = (number + step) % len(rows)
            batch = [rows[(index + k) % len(rows)] for k in range(1 + step % 4)]
            got = context.run([(row,) for row in batch])[0]
            # Another context may have chosen other kernels, which round in another way.
            wrong += int(_largest_difference(got[0], alone[index][0]) > apart / 10)
        return wrong

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(work, range(3))) == 0


def test_constant_indices_are_part_of_a_cuda_graph(
    rows: list[torch.Tensor], tmp_path: Path
) -> None:
    """Gather and Slice with indices of the file: turned channels, a mirror image, one position."""
    info = onnx.helper.make_tensor_value_info
    numbers = {"bgr": [2, 1, 0], "row": 7, "last": [-1], "end": [-500], "width": [3], "back": [-2]}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Gather", ["x", "bgr"], ["turned"], axis=1),
            onnx.helper.make_node("Slice", ["turned", "last", "end", "width", "back"], ["mirror"]),
            onnx.helper.make_node("Gather", ["mirror", "row"], ["line"], axis=2),
            onnx.helper.make_node("Flatten", ["line"], ["y"]),
        ],
        "indices",
        [info("x", onnx.TensorProto.FLOAT, ["N", 3, 224, 224])],
        [info("y", onnx.TensorProto.FLOAT, ["N", 336])],
        [
            onnx.numpy_helper.from_array(np.array(value, dtype=np.int64), name)
            for name, value in numbers.items()
        ],
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset]), tmp_path / "indices.onnx")
    model = OnnxModel.load(tmp_path / "indices.onnx")
    context = TorchCudaEngine(model, EngineOptions(max_batch_size=4)).create_context()
    for count in (1, 3, 4):
        floats = [row.float() for row in rows[:count]]
        got = context.run([(row,) for row in floats])[0]
        batch = torch.cat(floats)
        torch.testing.assert_close(got, batch[:, [2, 1, 0], 7].flip(-1)[..., ::2].flatten(1))


def test_a_gpu_host_chooses_it_in_fp16() -> None:
    choice = choose_engine("auto")
    assert (choice.name, choice.device, choice.precision) in {
        ("torch", "cuda", "fp16"),
        ("tensorrt", "cuda", "fp16"),
    }


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(EngineError, match="there is no GPU 63"):
        TorchCudaEngine(open_model("resnet50"), EngineOptions("fp16", device_id=63))


@pytest.mark.parametrize("in_pixels", [False, True])
def test_rows_of_several_shapes(rows: list[torch.Tensor], in_pixels: bool, tmp_path: Path) -> None:
    """One shape a run, in any order, from either side, with their channels first or last."""
    proto = open_model("efficientnet_lite0").proto
    freed = onnx.ModelProto()
    freed.CopyFrom(proto)
    del freed.graph.value_info[:]
    for dim in freed.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "any"
    onnx.save(freed, tmp_path / "open.onnx")
    model = OnnxModel.load(tmp_path / "open.onnx").with_limits([[(3, 3), (96, 224), (96, 224)]])
    if in_pixels:
        model = model.with_uint8_input(IMAGENET_NORMALIZATION)
    options = EngineOptions(max_batch_size=4)
    wanted, context = (
        engine(model, options).create_context() for engine in (TorchEngine, TorchCudaEngine)
    )
    for height, width in ((224, 224), (128, 160), (96, 200), (128, 160)):
        for count in (1, 3, 4):
            cut = [row[:, :, :height, :width] for row in rows[:count]]
            exact = wanted.run([(row,) for row in cut])[0].clone()
            mixed = [cut[0].cuda(), *[row.permute(0, 2, 3, 1) for row in cut[1:]]]
            got = context.run([(row,) for row in mixed])[0]
            assert not got.is_cuda
            assert (got - exact).abs().max() < 1e-3
    with pytest.raises(EngineError, match="the rows of one batch must have one shape"):
        context.run([(rows[0],), (rows[1][:, :, :128],)])
    with pytest.raises(EngineError, match=r"takes Nx3x96..224x96..224, got 1x3x64x224"):
        context.run([(rows[0][:, :, :64],)])
    context.close()
