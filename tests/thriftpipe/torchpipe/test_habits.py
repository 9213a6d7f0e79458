"""What torchpipe's own programs do with it, each habit in short; see torchpipe_programs.toml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import thriftpipe.torchpipe as tp


def onnx_file(folder: Path, inputs: Sequence[str], shape: Sequence[int], op: str) -> str:
    """A model of one operator, with a dynamic batch."""
    whole = ["batch", *shape]
    values = [helper.make_tensor_value_info(name, 1, whole) for name in (*inputs, "output")]
    graph = helper.make_graph(
        [helper.make_node(op, list(inputs), ["output"])], "habit", values[:-1], values[-1:]
    )
    path = folder / "habit.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, path)
    return str(path)


def test_layouts_of_an_image_are_taken_as_torchpipe_takes_them(tmp_path: Path) -> None:
    model = onnx_file(tmp_path, ["input"], [3, 6, 8], "Identity")
    node = {"model": model, "precision": "fp32", "mean": "", "std": "", "save_dir": ""}
    nchw = torch.rand(1, 3, 6, 8)
    with tp.pipe({"net": {**node, "backend": "SyncTensor[TensorrtTensor]"}}) as run:
        for data in (nchw, nchw[0], nchw.permute(0, 2, 3, 1), nchw[0].permute(1, 2, 0)):
            item = {"data": data, "color": "bgr"}
            run(item)
            assert torch.equal(item["result"].reshape(3, 6, 8), nchw[0])
        for data in (torch.rand(6, 3), torch.rand(1, 7, 8, 3)):
            with pytest.raises(RuntimeError, match="node 'net'"):
                run({"data": data})


def test_several_inputs_are_joined_to_batches(tmp_path: Path) -> None:
    model = onnx_file(tmp_path, ["x", "y"], [4], "Add")
    config = {
        "model": model,
        "backend": "SyncTensor[TensorrtTensor]",
        "precision": "fp32",
        "instance_num": 2,
        "batching_timeout": "5",
        "max": 4,
        "Interpreter::backend": "PipelineV3",
    }
    rows = torch.rand(5, 4)
    with tp.pipe(config) as run:
        items = [{tp.TASK_DATA_KEY: [row[None], 2 * row[None]]} for row in rows]
        run(items)
    for row, item in zip(rows, items, strict=True):
        assert torch.allclose(item[tp.TASK_RESULT_KEY].reshape(4), 3 * row)


def test_schedulers_are_named_and_a_postprocessor(tmp_path: Path) -> None:
    model = onnx_file(tmp_path, ["input"], [10], "Identity")
    logits = torch.rand(1, 10)
    for schedule in ("Schedule", "SortSchedule", "BaselineSchedule", "ScheduleV3"):
        config = {
            "model": model,
            "backend": "SyncTensor[TensorrtTensor]",
            "max": "4",
            "Interpreter::backend": "PipelineV3",
            "PipelineV3::backend": schedule,
            "postprocessor": "SoftmaxMax",
        }
        with tp.pipe(config) as run:
            number, score = run(data=logits)
        assert int(number) == int(logits.argmax())
        assert float(score) == pytest.approx(float(logits.softmax(1).max()), rel=0.01)


def test_filters_are_changed_in_a_parsed_file(tmp_path: Path) -> None:
    file = tmp_path / "graph.toml"
    file.write_text(
        '"Interpreter::backend" = "PipelineV3"\nbackend = "Identity"\n'
        '[root]\nnext = "left, right"\n[left]\nnext = "end"\n[right]\nnext = "end"\n'
        '[end]\nmap = "left[result:data], right[result:other]"\n'
    )
    for changed, key, value in (
        ({}, "result", b"1"),
        ({"filter": "Skip"}, "other", "1"),
        ({"filter": "Break", "backend": "C10Exception"}, "result", "1"),
    ):
        config = tp.parse_toml(str(file))
        config["right"].update(changed)
        with tp.pipe(config) as run:
            item = {tp.TASK_DATA_KEY: "1", "node_name": "root"}
            run(item)
        assert item.get(key) == value
    config["left"]["backend"] = config["right"]["backend"] = "C10Exception"
    config["right"]["filter"] = "Run"
    with tp.pipe(config) as run, pytest.raises(RuntimeError, match="node"):
        run({tp.TASK_DATA_KEY: "1", "node_name": "root"})


def test_elements_are_mapped_through_a_logical_node() -> None:
    tp.register_backend(_Doubles, "HabitDoubles")
    config = {
        "detect": {"backend": "Identity", "next": "each,recognise"},
        "each": {
            "backend": "MapReduce",
            "jump": "recognise.2",
            "split": "data",
            "merge": "result",
            "next": "end",
        },
        "recognise": {"backend": "HabitDoubles", "next": "end"},
        "recognise.2": {},
        "end": {"backend": "Identity", "map": "each[result:data],recognise[result:whole]"},
    }
    with tp.pipe(config) as run:
        item = {"data": [1, 2, 3], "node_name": "detect"}
        run(item)
    assert item["result"] == [2, 4, 6]
    assert item["whole"] == [1, 2, 3, 1, 2, 3]


class _Doubles:
    def forward(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            item["result"] = item["data"] * 2


class _Adds:
    def init(self, config: dict[str, str]) -> None:
        self.number = int(config["config"])

    def forward(self, items: list[dict[str, Any]]) -> None:
        items[0]["result"] = items[0]["data"] + self.number


def test_a_python_backend_in_brackets_gets_any_key() -> None:
    tp.register_backend(_Adds, "HabitAdds")
    config = {"backend": "Python[HabitAdds]", "config": 1, "any_key_u_want": "uhiojh"}
    with tp.pipe(config) as run:
        item = {"data": 2}
        run([item])
    assert item["result"] == 3


def test_streams_may_stand_anywhere() -> None:
    for backend in (
        "Torch[S[Torch[Identity],SyncTensor[SyncTensor],S[SyncTensor]]]",
        "SyncTensor[S[Identity]]",
        "S[Identity,SyncTensor]",
        "StreamGuard[Identity]",
    ):
        with tp.pipe({"only": {"backend": backend}}) as run:
            assert run(data=1) == 1
    failing = {"only": {"backend": "Torch[S[Torch[Identity],Torch[C10Exception]]]"}}
    item = {"data": 1}
    with tp.pipe(failing) as run, pytest.raises(RuntimeError):
        run(item)
    assert "result" not in item


def test_matrices_and_tensors_are_turned_into_each_other() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    size = {"resize_h": 3, "resize_w": 5}
    with tp.pipe({"only": {"backend": "Sequential[Tensor2Mat,Parallel[DynamicResizeMat]]"}}) as run:
        item = {"data": torch.from_numpy(image), **size}
        run(item)
    assert np.array_equal(item["result"], cv2.resize(image, (5, 3)))
    for layout, shape in (("hwc", (6, 8, 3)), ("nchw", (1, 3, 6, 8))):
        backend = {"backend": "S[Tensor2Mat,Mat2Tensor]", "data_format": layout}
        with tp.pipe({"only": backend}) as run:
            item = {"data": torch.from_numpy(image)}
            run(item)
        assert tuple(item["result"].shape) == shape
        assert item["data_format"] == layout.encode()


def test_a_batch_of_lines_gets_one_width() -> None:
    sizes = {"resize_h": 12, "max_w": 48, "align": 4}
    for rows, columns, width in ((3, 1, 4), (6, 9, 20), (6, 10, 20), (1, 30, 48), (30, 1, 0)):
        item = {"data": torch.zeros((rows, columns, 3), dtype=torch.uint8)}
        with tp.pipe({**sizes, "backend": "Sequential[Tensor2Mat, AlignMat]"}) as run:
            run(item)
        assert (item["resize_h"], item["resize_w"]) == (12, width)
    together = "Sequential[Tensor2Mat, Parallel[Range(range='2,2')[AlignMat]]]"
    items = [{"data": torch.zeros((6, columns, 3), dtype=torch.uint8)} for columns in (3, 9)]
    with tp.pipe({**sizes, "backend": together, "batching_timeout": 60_000}) as run:
        run(items)
    assert [item["resize_w"] for item in items] == [20, 20]
    with pytest.raises(RuntimeError, match="max_w = 48 is no multiple of align = 5"):
        tp.pipe({**sizes, "align": 5, "backend": "AlignMat"})


def test_pillows_filter_is_there_for_matrices_and_tensors(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    image = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    settings = {"resize_h": 3, "resize_w": 11, "color": "bgr", "save_dir": str(tmp_path)}
    expected = np.asarray(pillow.fromarray(image).resize((11, 3), pillow.Resampling.BILINEAR))
    for chain in ("PillowResizeMat,Mat2Tensor", "Mat2Tensor,PillowResizeTensor, SyncTensor"):
        item = {"data": torch.from_numpy(image), "color": "bgr"}
        backend = {"Interpreter::backend": f"Sequential[Tensor2Mat,cvtColorMat,{chain}]"}
        with tp.pipe({"a": {**settings, **backend}}) as run:
            run(item)
        assert np.array_equal(item["result"].squeeze(0).permute(1, 2, 0).numpy(), expected)


def test_two_pipes_may_have_nodes_of_the_same_name() -> None:
    with tp.pipe({"same": {"backend": "Identity"}}) as one, tp.pipe({"same": {}}) as other:
        assert one(data=1) == other(data=1) == 1
