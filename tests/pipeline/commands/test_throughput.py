"""`python -m pipeline throughput`: real engines, a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from engine.contexts.cuda_device import cuda_available
from pipeline.commands.dispatch import main
from tests.engines import CPU_ENGINES

SHORT = ["--repeats", "2", "--window-s", "0.02"]


def measured(
    capsys: pytest.CaptureFixture[str], model: Path | str, *words: str, code: int = 0
) -> list[dict[str, Any]]:
    assert main(["throughput", str(model), *SHORT, *words, "--json"]) == code
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["rows"]
    return rows


def test_every_engine_of_the_host_has_a_row_for_each_size(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = measured(capsys, folder / "channels.onnx", "--batches", "1,3", "--precision", "fp32")
    if not cuda_available():
        assert [(row["engine"], row["batch"]) for row in rows] == [
            (engine, batch) for engine in CPU_ENGINES for batch in (1, 3)
        ]
    for row in rows:
        assert len(row["images_per_s"]) == 2
        assert row["batches"] >= 2 * row["instances"]
        assert 0 < row["batch_ms"] <= row["batch_tp99_ms"]


def test_the_table_compares_with_the_first_row(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    words = ["--engine", "onnxruntime,torch", "--batches", "2", "--instances", "1"]
    assert main(["throughput", str(folder / "channels.onnx"), *SHORT, *words]) == 0
    shown, progress = capsys.readouterr()
    assert shown.startswith("channels.onnx: 'input' float32 N x 3 x 8 x 8\n")
    first, second = (line for line in shown.splitlines() if " fp" in line)
    assert first.startswith("onnxruntime fp32  2      1 x ")
    assert second.startswith("torch fp")
    assert "median\nand range of 2 windows of 0.02 s" in shown
    assert "measuring, repeat 2 of 2 ..." in progress


def test_what_a_model_cannot_run_costs_only_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reshape that the graph needs to be of one row, whatever the batch is."""
    image = [1, 3, 4, 4]
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["shape"], value_ints=[1, 48]),
            helper.make_node("Reshape", ["input", "shape"], ["output"]),
        ],
        "fixed",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 48])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, tmp_path / "fixed.onnx")
    words = ["--engine", "onnxruntime", "--batches", "1,2"]
    one, two = measured(capsys, tmp_path / "fixed.onnx", *words, code=1)
    assert len(one["images_per_s"]) == 2
    assert "the file fixes batches of one row" in two["error"]
    assert main(["throughput", str(tmp_path / "fixed.onnx"), *SHORT, *words]) == 1
    assert "onnxruntime fp32, batch 2: the file fixes" in capsys.readouterr().out


def test_a_model_of_several_inputs_and_open_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["input"], ["output"])],
        "open",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 3, "h", "w"])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, tmp_path / "open.onnx")
    words = ["--engine", "onnxruntime", "--batches", "2"]
    assert main(["throughput", str(tmp_path / "open.onnx"), *SHORT, *words]) == 2
    error = capsys.readouterr().err
    assert "has no fixed size" in error
    assert "--size 224x224" in error
    (row,) = measured(capsys, tmp_path / "open.onnx", *words, "--size", "8x16")
    assert row["batch"] == 2
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["ids"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["numbers", "other"], ["output"]),
        ],
        "two",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 5]),
            helper.make_tensor_value_info("other", TensorProto.FLOAT, ["n", 5]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 5])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, tmp_path / "two.onnx")
    (row,) = measured(capsys, tmp_path / "two.onnx", *words)
    assert row["batches"] >= 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/no/model.onnx"], "there is no folder /no"),
        (["resnet5"], "did you mean 'resnet50'?"),
        (["{model}", "--engine", "openvin"], "did you mean 'openvino'?"),
        (["{model}", "--precision", "fp33"], "did you mean 'fp32'?"),
        (["{model}", "--engine", "torch", "--precision", "int8"], "torch"),
        (["{model}", "--size", "16x16"], "16"),
    ],
)
def test_what_cannot_begin_is_one_line(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(model=folder / "channels.onnx") for word in words]
    assert main(["throughput", *given]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batches", "1,,2"], "takes a list of whole numbers, got '1,,2'"),
        (["--size", "224x"], "such as 224 or 224x320 (height x width)"),
        (["--sizes", "224x224"], "did you mean '--size'?"),
    ],
)
def test_a_mistyped_command_line_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["throughput", "model.onnx", *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
