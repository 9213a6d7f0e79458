"""The ONNX interpreter, against the reference cases that the ONNX project publishes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from engine.errors import EngineError
from engine.onnx_graph.model import OnnxModel
from engine.onnx_in_torch.conversion import OnnxModule
from engine.onnx_in_torch.operators import OPERATORS
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine

# Element types of images, scores, shapes and masks.
DTYPES = {
    np.dtype(name) for name in ("float16", "float32", "float64", "int64", "int32", "uint8", "bool")
}
# What is refused, by a part of the case's name, and the message.
REFUSED = {
    "averagepool_2d_dilations": "AveragePool with dilations",
    "averagepool_3d_dilations": "AveragePool with dilations",
    "maxpool_with_argmax": "indices of MaxPool",
    "batchnorm_epsilon_training": "exported for training",
    "batchnorm_example_training": "exported for training",
    "training_dropout": "exported for training",
    "reduce_max_empty_set": "non-zero size",
}


@dataclass(frozen=True)
class Reference:
    """A model of one operator, and what its inputs are to give."""

    name: str
    model: onnx.ModelProto
    data_sets: Sequence[tuple[Sequence[Any], Sequence[Any]]]


def first_output_only(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Without outputs such as masks and statistics, which no classifier reads."""
    del proto.graph.output[1:]
    return proto


@pytest.fixture(scope="module")
def reference_cases() -> dict[str, list[Reference]]:
    """The published cases of single operators, by operator."""
    cases: dict[str, list[Reference]] = defaultdict(list)
    with np.errstate(all="ignore"):
        collected = collect_testcases(None)
    for case in collected:
        if case.model is None or case.data_sets is None or len(case.model.graph.node) != 1:
            continue
        values = [as_array(v) for data_set in case.data_sets for side in data_set for v in side]
        if all(getattr(value, "dtype", None) in DTYPES for value in values):
            reference = Reference(case.name, case.model, case.data_sets)
            cases[case.model.graph.node[0].op_type].append(reference)
    return cases


def as_array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def as_tensors(values: Any) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(as_array(value))) for value in values]


# Those of our own are for GPUs only.
@pytest.mark.parametrize("op", sorted(op for op in OPERATORS if not op.startswith("thriftpipe.")))
def test_operators_do_what_the_onnx_project_says(
    op: str, reference_cases: dict[str, list[Reference]]
) -> None:
    assert reference_cases[op]
    for case in reference_cases[op]:
        refusal = next((why for part, why in REFUSED.items() if part in case.name), None)
        proto = case.model if op == "Split" else first_output_only(case.model)
        for inputs, outputs in case.data_sets:
            with torch.inference_mode():
                if refusal:
                    with pytest.raises(EngineError, match=refusal):
                        OnnxModule(proto)(*as_tensors(inputs))
                    continue
                computed = OnnxModule(proto)(*as_tensors(inputs))
            for got, published in zip(computed, outputs, strict=False):
                expected = as_array(published)
                assert got.shape == expected.shape, case.name
                assert got.numpy().dtype == expected.dtype, case.name
                np.testing.assert_allclose(
                    got.numpy(), expected, rtol=1e-3, atol=1e-5, err_msg=case.name
                )


def test_an_unknown_operator_is_named_with_the_engines_that_know_it(
    small_proto: Callable[..., onnx.ModelProto], tmp_path: Path
) -> None:
    proto = small_proto()
    proto.graph.node[-1].CopyFrom(helper.make_node("Hardmax", ["logits"], ["scores"], "end"))
    onnx.save(proto, tmp_path / "m.onnx")
    model = OnnxModel.load(tmp_path / "m.onnx")
    with pytest.raises(
        EngineError,
        match=r"no operator Hardmax \(node 'end'\); use engine onnxruntime or openvino",
    ):
        load_engine(choose_engine("torch"), model, EngineOptions())


def test_an_operator_of_another_domain_is_unknown(
    small_proto: Callable[..., onnx.ModelProto],
) -> None:
    proto = small_proto()
    proto.graph.node[-1].domain = "com.microsoft"
    with pytest.raises(EngineError, match=r"no operator com\.microsoft\.Softmax"):
        OnnxModule(proto)


def test_a_node_that_cannot_run_is_named_when_the_engine_is_loaded(
    small_proto: Callable[..., onnx.ModelProto], tmp_path: Path
) -> None:
    proto = small_proto()
    proto.graph.node[2].name = "bend"
    shape = next(tensor for tensor in proto.graph.initializer if tensor.name == "shape")
    shape.CopyFrom(numpy_helper.from_array(np.array([0, 7], dtype=np.int64), "shape"))
    onnx.save(proto, tmp_path / "m.onnx")
    model = OnnxModel.load(tmp_path / "m.onnx")
    with pytest.raises(EngineError, match=r"node 'bend' \(Reshape\) failed: shape") as caught:
        load_engine(choose_engine("torch"), model, EngineOptions())
    assert "\n" not in str(caught.value)


def test_an_output_that_is_not_computed_is_named() -> None:
    nodes = [helper.make_node("Dropout", ["x"], ["y", "mask"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", 2])],
        [value("y", TensorProto.FLOAT, ["n", 2]), value("mask", TensorProto.BOOL, ["n", 2])],
    )
    module = OnnxModule(helper.make_model(graph))
    with pytest.raises(EngineError, match="does not compute the model's output 'mask'"):
        module(torch.zeros(1, 2))


def test_what_depends_on_constants_alone_is_computed_once() -> None:
    """Chains that compute a padding, as exporters leave them, cost nothing at run time."""
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Constant", [], ["half"], value_ints=[0, 0, 1, 1]),
            node("Concat", ["half", "half"], ["pads"], axis=0),
            node("Pad", ["x", "pads"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 4, 4])],
    )
    module = OnnxModule(helper.make_model(graph))
    assert [n.op for n in module._nodes] == ["Pad"]
    assert module(torch.ones(1, 1, 2, 2))[0].shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("MaxPool", {"kernel_shape": [1, 3], "strides": [3, 3], "pads": [0, 2, 0, 2]}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [0, 0, 2, 2]}),
        ("AveragePool", {"kernel_shape": [4, 2], "strides": [3, 2], "pads": [0, 0, 3, 0]}),
        ("AveragePool", {"kernel_shape": [4, 2], "strides": [3, 2], "pads": [1, 0, 3, 1]}),
    ],
)
def test_no_window_of_a_pool_starts_in_the_padding_behind(
    op: str, attributes: dict[str, Any]
) -> None:
    images = np.random.default_rng(0).normal(size=(1, 3, 11, 7)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], ceil_mode=1, **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, images.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (expected,) = session.run(None, {"x": images})
    (found,) = OnnxModule(proto)(torch.from_numpy(images))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_older_forms_of_operators_give_the_same(
    small_proto: Callable[..., onnx.ModelProto],
) -> None:
    """Before opset 13 Softmax ran over all dimensions from its axis on."""
    images = torch.rand(2, 3, 8, 8)
    older, newer = OnnxModule(small_proto(opset=11)), OnnxModule(small_proto(opset=17))
    torch.testing.assert_close(older(images), newer(images))


def test_floating_point_constants_move_with_the_module_and_shapes_stay(
    small_proto: Callable[..., onnx.ModelProto],
) -> None:
    module = OnnxModule(small_proto(), torch.bfloat16)
    assert sorted(tuple(b.shape) for b in module.buffers()) == [(4, 3, 3, 3), (4, 5)]
    meta = module.to("meta")
    assert all(buffer.is_meta for buffer in meta.buffers())
    assert [tensor.dtype for tensor in meta._cpu_constants.values()] == [torch.int64]
