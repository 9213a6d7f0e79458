"""TensorrtTensor with a real engine behind it, and the quick-start's own configuration."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from engine.cpu.cores import available_cores
from engine.options import BatchProfile
from pipeline import TASK_ERROR_KEY, TASK_RESULT_KEY, PipelineConfigError, PipelineInputError, pipe
from pipeline.backends.engine_settings import batch_shapes
from pipeline.language.settings import BatchShape
from tests.engines import INT8_ENGINES

# The quick-start's file with its model paths and its dangling `next` to be filled in.
QUICK_START = """
batching_timeout = 5
instance_num = 4
precision = "fp16"

[cpu_decoder]
backend = "Torch[Sequential[DecodeMat]]"
next = "{after_decoder}"

[cpu_posdecoder]
backend = "Torch[Sequential[ResizeMat,cvtColorMat, Mat2Tensor]]"

### resize
resize_h = 224
resize_w = 224

### cvtColorMat
color = "rgb"

next = "resnet50"

[resnet50]
backend = "Torch[TensorrtTensor]"
min = "1x3x224x224"
max = "4x3x224x224"

model = "{model}"

mean="123.675, 116.28, 103.53" # 255*"0.485, 0.456, 0.406"
std="58.395, 57.120, 57.375" # 255*"0.229, 0.224, 0.225"

# TensorrtTensor
"model::cache"="{cache}" # or resnet50.trt.encrypted
"""


@pytest.fixture(scope="session")
def channel_means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose three outputs are the means of the channels of an 8x8 image."""
    shape = ["batch", 3, 8, 8]
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Reshape", ["pooled", "shape"], ["output"]),
        ],
        "channel_means",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array([-1, 3], dtype=np.int64), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = tmp_path_factory.mktemp("models") / "channel_means.onnx"
    onnx.save(model, path)
    return path


def node(model: Path, **settings: Any) -> dict[str, Any]:
    return {"m": {"backend": "Torch[TensorrtTensor]", "model": str(model), **settings}}


def plain_image(value: int) -> torch.Tensor:
    """Red = value, green = value + 1, blue = value + 2."""
    channels = torch.tensor([value, value + 1, value + 2], dtype=torch.uint8)
    return channels.view(1, 3, 1, 1).expand(1, 3, 8, 8)


def test_mean_and_std_are_fused_so_that_uint8_goes_in(channel_means: Path) -> None:
    document = node(channel_means, mean="10, 20, 30", std="2, 4, 5", max="2x3x8x8")
    with pipe(document) as run:
        item = {"data": plain_image(100)}
        run(item)
        assert run.nodes["m"].shared.get("engine").inputs[0].dtype == torch.uint8
    expected = [(100 - 10) / 2, (101 - 20) / 4, (102 - 30) / 5]
    assert item[TASK_RESULT_KEY].tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"mean": "10,20,30"}, [90, 81, 72]), ({"std": "4"}, [25, 25.25, 25.5])],
)
def test_mean_or_std_alone(
    channel_means: Path, settings: dict[str, str], expected: list[float]
) -> None:
    """As torchpipe takes them: the one that is missing changes nothing."""
    item = {"data": plain_image(100)}
    with pipe(node(channel_means, **settings)) as run:
        run(item)
    assert item[TASK_RESULT_KEY].tolist() == [pytest.approx(expected)]


def test_results_belong_to_their_items_whatever_the_batches(channel_means: Path) -> None:
    document = node(channel_means, max=4, instance_num=2)
    with pipe(document) as run, ThreadPoolExecutor(12) as callers:

        def call(value: int) -> bool:
            items = [{"data": plain_image(value)}, {"data": plain_image(value + 50)[0]}]
            run(items)
            return [item[TASK_RESULT_KEY][0, 0].item() for item in items] == [value, value + 50]

        assert all(callers.map(call, list(range(200)) * 2))
        counts = run.nodes["m"].counts.batches
        assert sum(size * number for size, number in counts.by_size.items()) == 800


def test_an_item_of_the_wrong_shape_fails_alone(channel_means: Path) -> None:
    with pipe(node(channel_means, max=4)) as run:
        items = [{"data": plain_image(1)}, {"data": torch.zeros(1, 3, 9, 8)}, {"data": "text"}]
        run(items)
    assert items[0][TASK_RESULT_KEY][0, 0] == 1
    assert "takes Nx3x8x8, got 1x3x9x8" in str(items[1][TASK_ERROR_KEY])
    assert "expected a tensor, such as Mat2Tensor gives, got str" in str(items[2][TASK_ERROR_KEY])


def test_an_item_may_count_for_several_rows(channel_means: Path) -> None:
    def images(*values: int) -> torch.Tensor:
        return torch.cat([plain_image(value) for value in values])

    with pipe(node(channel_means, max=4)) as run:
        items: list[dict[str, Any]] = [
            {"data": images(1, 2, 3), "request_size": 3},
            {"data": images(9)},
            {"data": images(4, 5), "request_size": 2},
            {"data": images(6, 7)},
            {"data": images(*range(5)), "request_size": 5},
        ]
        run(items)
        assert max(run.nodes["m"].counts.batches.by_size) <= 5
    assert items[0][TASK_RESULT_KEY][:, 0].tolist() == [1, 2, 3]
    assert items[1][TASK_RESULT_KEY].tolist() == [[9, 10, 11]]
    assert items[2][TASK_RESULT_KEY][:, 0].tolist() == [4, 5]
    assert "request_size = 1, and its tensor 2 rows" in str(items[3][TASK_ERROR_KEY])
    assert "request_size = 5, and a batch holds at most 4" in str(items[4][TASK_ERROR_KEY])
    with pipe(node(channel_means)) as run, pytest.raises(PipelineInputError, match="request_size"):
        run({"data": images(1), "request_size": 0})


@pytest.fixture(scope="session")
def two_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that adds its inputs, of shapes (rows, 2, 3) and (rows, 1, 3)."""
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count, 3])
        for name, count in (("left", 2), ("right", 1))
    ]
    output = helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 2, 3])
    graph = helper.make_graph(
        [helper.make_node("Add", ["left", "right"], ["sum"])], "two_inputs", inputs, [output]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = tmp_path_factory.mktemp("models") / "two_inputs.onnx"
    onnx.save(model, path)
    return path


def test_a_model_of_several_inputs_takes_a_list_of_tensors(two_inputs: Path) -> None:
    with pipe(node(two_inputs, max="4x2x3,4x1x3")) as run:
        left, right = torch.ones(1, 2, 3), torch.arange(3.0).view(1, 3)
        items = [{"data": [left, right]}, {"data": [left * 2, right]}, {"data": left}]
        run(items)
    assert items[0][TASK_RESULT_KEY].tolist() == [[[1, 2, 3], [1, 2, 3]]]
    assert items[1][TASK_RESULT_KEY].tolist() == [[[2, 3, 4], [2, 3, 4]]]
    assert "2 inputs (left, right), got 1 tensors" in str(items[2][TASK_ERROR_KEY])


def test_inputs_of_which_only_rows_are_given_have_the_models_shape(
    two_inputs: Path, tmp_path: Path
) -> None:
    proto = onnx.load(two_inputs)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "length"
    onnx.save(proto, tmp_path / "open.onnx")
    items = [{"data": [torch.ones(1, length, 3), torch.ones(1, 1, 3)]} for length in (2, 5, 7)]
    shapes = {"min": "1x2x3,1", "max": "4x5x3,4"}
    with pipe(node(tmp_path / "open.onnx", **shapes), engine="onnxruntime") as run:
        run(items)
    assert [item[TASK_RESULT_KEY].shape[1] for item in items[:2]] == [2, 5]
    assert "input 'left' takes Nx2..5x3, got 1x7x3" in str(items[2][TASK_ERROR_KEY])
    with pytest.raises(PipelineConfigError, match="'left'"):
        pipe(node(tmp_path / "open.onnx", max="4,4x1x3"))


def test_shapes_of_inputs_that_are_not_there_are_refused(
    two_inputs: Path, channel_means: Path
) -> None:
    for model, shapes, words in (
        (channel_means, "4x3x8x8,4x5", "has shapes of 2 inputs, the model has 1"),
        (two_inputs, "4x2x3", "has shapes of 1 inputs, the model has 2"),
        (two_inputs, "4x2x3,4x9x3", "one row of input 'right' is 1x3"),
        (two_inputs, "4x2x3,2x1x3", "which all have the same rows"),
    ):
        with pytest.raises(PipelineConfigError, match=words):
            pipe(node(model, max=shapes))


def test_instances_are_never_more_than_cores(
    channel_means: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cores = available_cores()
    with caplog.at_level(logging.INFO), pipe(node(channel_means, instance_num=cores + 3)) as run:
        options = run.nodes["m"].shared.get("engine").options
        assert run.nodes["m"].instance_num == cores
        assert options.num_contexts * options.threads_per_context <= cores
    assert f"instance_num {cores + 3} becomes {cores}: more would" in caplog.text


def test_every_instance_has_batches_of_its_own_profile(channel_means: Path) -> None:
    """The second instance takes 2 and more; no batch is larger than the larger profile."""
    document = node(channel_means, min="1; 2", max="1;3x3x8x8", instance_num=2)
    with pipe(document) as run:
        options = run.nodes["m"].shared.get("engine").options
        items = [{"data": plain_image(value)} for value in range(40)]
        run(items)
        sizes = set(run.nodes["m"].counts.batches.by_size)
    assert options.max_batch_size == (3 if options.num_contexts == 2 else 1)
    assert options.profiles == (BatchProfile(1, 1), BatchProfile(2, 3))[: options.num_contexts]
    assert max(sizes) <= options.max_batch_size
    assert [item[TASK_RESULT_KEY][0, 0].item() for item in items] == list(range(40))


def test_the_last_profile_is_that_of_all_further_instances(channel_means: Path) -> None:
    with pipe(node(channel_means, min="1", max="2;4")) as run:
        assert run.nodes["m"].shared.get("engine").options.profiles == (BatchProfile(1, 2),)
    settings = {"min": BatchShape(1), "max": (BatchShape(2), BatchShape(4))}
    assert batch_shapes(settings) == [
        (BatchShape(1), BatchShape(2)),
        (BatchShape(1), BatchShape(4)),
    ]


def test_settings_reach_the_engine(channel_means: Path, tmp_path: Path) -> None:
    settings = {
        "model::cache": str(tmp_path / "means.cache"),
        "model::timingcache": str(tmp_path / "timing.cache"),
        "max_workspace_size": 256,
        "precision::fp32": "pool, Reshape",
        "precision::fp16": "conv",
    }
    with pipe(node(channel_means, **settings)) as run:
        options = run.nodes["m"].shared.get("engine").options
    assert options.cache_path == tmp_path / "means.cache"
    assert options.timing_cache_path == tmp_path / "timing.cache"
    assert options.max_workspace_bytes == 256 * 2**20
    assert options.fp32_layers == ("pool", "Reshape")
    assert options.fp16_layers == ("conv",)


def test_an_encrypted_cache_is_opened_with_the_key_of_its_file(
    channel_means: Path, tmp_path: Path
) -> None:
    key_file, cache = tmp_path / "cache.key", tmp_path / "means.trt.encrypted"
    key_file.write_text("0f" * 32)
    key_file.chmod(0o600)
    document = node(channel_means, **{"model::cache": str(cache), "model::key_file": str(key_file)})
    for _ in range(2):
        with pipe(document) as run:
            item = {"data": plain_image(7)}
            run(item)
        assert item[TASK_RESULT_KEY].tolist() == [[7, 8, 9]]
    key_file.write_text("1f" * 32)
    with pytest.raises(PipelineConfigError, match=r"\[m\] .*the key does not open it"):
        pipe(document)


@pytest.mark.parametrize("engine", ["auto", *INT8_ENGINES])
def test_int8_keeps_the_labels_of_photographs(
    engine: str,
    tmp_path: Path,
    labelled_photographs: list[tuple[bytes, tuple[str, ...]]],
    imagenet_labels: list[str],
) -> None:
    for index, (data, _) in enumerate(labelled_photographs):
        (tmp_path / f"{index}.jpg").write_bytes(data)
    document = {
        "decode": {
            "backend": "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]",
            "resize_h": 224,
            "resize_w": 224,
            "next": "m",
        },
        "m": {
            "backend": "TensorrtTensor",
            "model": "efficientnet_lite0",
            "mean": "126.99",
            "std": "128.01",
            "precision": "int8",
            "calibration_images": str(tmp_path),
        },
    }
    with pipe(document, engine=engine) as run:
        items = [{"data": data} for data, _ in labelled_photographs]
        run(items)
        assert run.nodes["m"].shared.get("engine").options.precision == "int8"
    for item, (_, words) in zip(items, labelled_photographs, strict=True):
        label = imagenet_labels[int(item[TASK_RESULT_KEY].argmax())]
        assert any(word in label for word in words), label


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int8"}, r"\[m\] .*calibration_images"),
        ({"min": "1;3", "max": "1;2"}, r"\[m\] min = 3 is more than max = 2"),
        ({"max": "4;4x3x9x9"}, r"\[m\] max = 4x3x9x9, but one row of the model's input is 3x8x8"),
        ({"max": "4x3x9x9"}, r"\[m\] max = 4x3x9x9, but one row of the model's input is 3x8x8"),
        ({"min": 3, "max": 2}, r"\[m\] min = 3 is more than max = 2"),
        ({"mean": "1,2"}, r"\[m\] mean takes 1 value or 3"),
        ({"mean": "1,2,3", "std": "1,0,1"}, r"\[m\] std must be positive"),
        ({"model": "chanel_means.onnx"}, r"\[m\] .*chanel_means\.onnx"),
    ],
)
def test_what_cannot_run_is_refused_at_load_and_leaves_no_thread(
    channel_means: Path, settings: dict[str, Any], message: str
) -> None:
    before = set(threading.enumerate())
    with pytest.raises(PipelineConfigError, match=message):
        pipe({"m": {**node(channel_means)["m"], **settings}})
    assert set(threading.enumerate()) == before


def test_an_unknown_engine_is_refused_with_the_closest(channel_means: Path) -> None:
    with pytest.raises(PipelineConfigError, match="did you mean 'onnxruntime'"):
        pipe(node(channel_means), engine="onxruntime")


def quick_start(tmp_path: Path, after_decoder: str) -> Path:
    path = tmp_path / "resnet50_cpu.toml"
    cache = tmp_path / "resnet50.trt"
    path.write_text(QUICK_START.format(after_decoder=after_decoder, model="resnet50", cache=cache))
    return path


def test_the_quick_starts_own_toml_and_loop_run_unchanged(
    tmp_path: Path, photographs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        classifier = pipe(quick_start(tmp_path, "cpu_posdecoder"))
    with classifier:
        bin_data_list: list[dict[str, Any]] = [
            {"data": data, "node_name": "cpu_decoder"} for data in [*photographs, b"no image"]
        ]
        classifier(bin_data_list)
    scores = [
        np.squeeze(item["result"].cpu().numpy()) for item in bin_data_list if "result" in item
    ]
    assert len(scores) == len(photographs)
    assert all(row.shape == (1000,) and abs(row.sum() - 1) < 1e-3 for row in scores)
    assert "result" not in bin_data_list[-1]
    (line,) = (text for text in caplog.messages if "onnxruntime" in text)
    assert line.startswith("engine onnxruntime (the default on a CPU; fp32 instead of the file's ")
    assert "file's fp16, which it does not run): resnet50" in line


def test_the_quick_starts_dangling_next_fails_at_load(tmp_path: Path) -> None:
    with pytest.raises(PipelineConfigError) as caught:
        pipe(quick_start(tmp_path, "cpu_posprocess"))
    message = str(caught.value)
    assert "'cpu_posprocess'" in message
    assert "node 'cpu_decoder'" in message
    assert "did you mean 'cpu_posdecoder'?" in message
