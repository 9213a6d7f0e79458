"""What `postprocessor` makes of the outputs of real engines, against torch called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline import TASK_ERROR_KEY, TASK_RESULT_KEY, PipelineConfigError, pipe

CLASSES = 7
WEIGHTS = np.random.default_rng(3).normal(0, 0.02, (3, CLASSES)).astype(np.float32)


def write_model(path: Path, *outputs: str) -> Path:
    """A model with some of these outputs, all computed from the means of an 8x8 image's channels.

    "logits" (N, 7), "softmax" (N, 7), "wide" (N, 7, 1, 1), "pooled" (N, 3, 1, 1).
    """
    shapes = {
        "logits": ["batch", CLASSES],
        "softmax": ["batch", CLASSES],
        "wide": ["batch", CLASSES, 1, 1],
        "pooled": ["batch", 3, 1, 1],
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["softmax"], axis=1),
        helper.make_node("Reshape", ["logits", "shape"], ["wide"]),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs],
        [
            numpy_helper.from_array(WEIGHTS, "weights"),
            numpy_helper.from_array(np.array([-1, CLASSES, 1, 1], dtype=np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path)
    return path


def images(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.rand((1, 3, 8, 8), generator=generator) * 255 for _ in range(count)]


def run(model: Path, count: int = 9, **settings: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = [{"data": image} for image in images(count)]
    with pipe({"m": {"backend": "TensorrtTensor", "model": str(model), **settings}}) as classify:
        classify(items)
    return items


def expected_logits(count: int = 9) -> torch.Tensor:
    means = torch.cat(images(count)).double().mean(dim=(2, 3))
    return means @ torch.from_numpy(WEIGHTS).double()


@pytest.mark.parametrize("name", [None, "split", "cpu", "CPU"])
def test_split_and_cpu_give_each_item_its_row(tmp_path: Path, name: str | None) -> None:
    settings = {} if name is None else {"postprocessor": name}
    items = run(write_model(tmp_path / "m.onnx", "logits"), max=4, **settings)
    for item, logits in zip(items, expected_logits(), strict=True):
        assert item[TASK_RESULT_KEY].shape == (1, CLASSES)
        torch.testing.assert_close(item[TASK_RESULT_KEY][0].double(), logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("max_rows", [1, 4])
@pytest.mark.parametrize("name", ["SoftmaxCpu", "softmaxcpu"])
def test_softmax_cpu_gives_the_softmax_of_the_logits_to_the_bit(
    tmp_path: Path, name: str, max_rows: int
) -> None:
    model = write_model(tmp_path / "m.onnx", "logits")
    logits = [item[TASK_RESULT_KEY] for item in run(model, max=max_rows)]
    scores = [item[TASK_RESULT_KEY] for item in run(model, max=max_rows, postprocessor=name)]
    for row, given in zip(scores, logits, strict=True):
        assert row.dtype == torch.float32
        assert torch.equal(row, torch.softmax(given, dim=1))


def test_softmax_max_gives_the_class_and_its_probability(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", "logits")
    for max_rows in (1, 4):
        items = run(model, max=max_rows, postprocessor="SoftmaxMax")
        for item, scores in zip(items, torch.softmax(expected_logits(), dim=1), strict=True):
            number, score = item[TASK_RESULT_KEY]
            assert isinstance(number, int)
            assert number == int(scores.argmax())
            assert score == pytest.approx(float(scores.max()), abs=1e-5)


def test_several_outputs_are_a_list_of_rows_and_softmax_takes_the_rows_of_scores(
    tmp_path: Path,
) -> None:
    model = write_model(tmp_path / "m.onnx", "logits", "pooled")
    plain = [item[TASK_RESULT_KEY] for item in run(model, max=4)]
    softmax = [item[TASK_RESULT_KEY] for item in run(model, max=4, postprocessor="SoftmaxCpu")]
    for (logits, pooled), (scores, same) in zip(plain, softmax, strict=True):
        assert logits.shape == (1, CLASSES)
        assert pooled.shape == (1, 3, 1, 1)
        assert torch.equal(scores, torch.softmax(logits, dim=1))
        assert torch.equal(same, pooled)


def test_results_stay_as_they_are_when_the_next_batch_runs(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", "logits")
    for name in ("split", "SoftmaxCpu"):
        document = {"backend": "TensorrtTensor", "model": str(model), "postprocessor": name}
        with pipe({"m": document}) as classify:
            first, second = ({"data": image} for image in images(2))
            classify(first)
            before = first[TASK_RESULT_KEY].clone()
            classify(second)
        assert torch.equal(first[TASK_RESULT_KEY], before)
        assert not torch.equal(second[TASK_RESULT_KEY], before)


def test_an_item_of_the_wrong_shape_fails_alone(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", "logits")
    items: list[dict[str, Any]] = [{"data": images(1)[0]}, {"data": torch.zeros(1, 3, 9, 8)}]
    document = {"backend": "TensorrtTensor", "model": str(model), "max": 4}
    with pipe({"m": {**document, "postprocessor": "SoftmaxMax"}}) as classify:
        classify(items)
    assert len(items[0][TASK_RESULT_KEY]) == 2
    assert "takes Nx3x8x8" in str(items[1][TASK_ERROR_KEY])


@pytest.mark.parametrize(
    ("outputs", "name", "message"),
    [
        (["softmax"], "SoftmaxCpu", 'gives probabilities already.*use postprocessor = "split"'),
        (["softmax"], "SoftmaxMax", "gives probabilities already"),
        (["logits", "pooled"], "SoftmaxMax", "needs a model with one output; m.onnx has 2"),
        (["wide"], "SoftmaxMax", r"needs an output of shape \(rows, classes\).*7, 1, 1"),
        (["wide", "pooled"], "SoftmaxCpu", r"needs an output of shape \(rows, classes\)"),
        (["logits"], "SoftMax", 'expected one of "split", "cpu", "SoftmaxCpu", "SoftmaxMax"'),
        (["logits"], 3, "postprocessor = 3: expected one of"),
    ],
)
def test_what_cannot_work_is_refused_at_load(
    tmp_path: Path, outputs: list[str], name: Any, message: str
) -> None:
    model = write_model(tmp_path / "m.onnx", *outputs)
    document = {"backend": "TensorrtTensor", "model": str(model), "postprocessor": name}
    with pytest.raises(PipelineConfigError, match=message):
        pipe({"m": document})
