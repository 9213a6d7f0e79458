"""What a measurement fills in of a document, and what it leaves alone."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.calibration import choice, kept, measurement
from engine.cpu.cores import CORES_VARIABLE, available_cores
from pipeline.handler import create_handler
from pipeline.handler_document import calibrated_document, handler_document
from service.handlers.handler_settings import HandlerSettings

FILE = """
{globals}
[node]
backend = "S[DecodeMat,ResizeMat,Mat2Tensor,TensorrtTensor{own}]"
resize_h = 8
resize_w = 8
{table}
"""
MEASURING = "measuring which batches suit this machine"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache folder, and short measurements for which there is always time."""
    monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "SHORTEST_WINDOW_S", 0.001)
    monkeypatch.setattr(measurement, "_LEAST_S", 30.0)
    monkeypatch.setattr(measurement, "MOST_ROUNDS", 8)
    monkeypatch.setattr(kept, "_LEAST_CPU_SHARE", 0.0)


@pytest.fixture
def settings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> HandlerSettings:
    """Those of a server for a small model, without a file."""
    caplog.set_level(logging.INFO)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Reshape", ["pooled", "shape"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["output"]),
        ],
        "means",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array([-1, 3], np.int64), "shape")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, tmp_path / "means.onnx")
    return HandlerSettings(
        model=str(tmp_path / "means.onnx"),
        engine="onnxruntime",
        precision="fp32",
        mean=(0.0,),
        std=(1.0,),
    )


def with_file(settings: HandlerSettings, path: Path, **parts: str) -> HandlerSettings:
    path.write_text(FILE.format(**{"globals": "", "own": "", "table": "", **parts}))
    return replace(settings, config=str(path))


def rows(node: dict[str, Any]) -> int:
    return int(str(node["max"]).split("x")[0])


def test_the_shipped_file_gets_what_is_measured_and_the_next_start_reads_it(
    settings: HandlerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    handler = create_handler(settings)
    info = handler.info()
    handler.close()
    assert caplog.text.count(MEASURING) == 1
    line = info.settings["calibration"]
    assert line.startswith(("batches of ", "single images: "))
    assert f"[means] {line}" in caplog.text
    document, again = calibrated_document(settings)
    assert again == line
    assert caplog.text.count(MEASURING) == 1
    node = document["means"]
    assert rows(node) in (1, 2, 4, 8)
    assert node["max"].endswith("x3x8x8")
    assert info.settings["max_batch_size"] == str(rows(node))
    assert node["instance_num"] == available_cores()
    assert info.settings["means.instances"] == str(available_cores())
    plain = handler_document(settings)
    assert {**document, "means": {}} == {**plain, "means": {}}


def test_the_workers_of_a_start_find_the_answer_in_their_folder(
    settings: HandlerSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of_start = tmp_path / "start"
    of_start.mkdir()
    given = replace(settings, shared_folder=str(of_start))
    first = calibrated_document(given)
    assert [path.suffix for path in of_start.iterdir()] == [".json"]
    for path in (tmp_path / "cache").glob("calibration-*"):
        path.unlink()
    assert calibrated_document(given) == first
    assert caplog.text.count(MEASURING) == 1


def test_another_share_of_the_cores_is_measured_by_itself(
    settings: HandlerSettings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("engine.cpu.cores.cgroup_quota_cores", lambda: None)
    for cores in (2, 1):
        monkeypatch.setenv(CORES_VARIABLE, str(cores))
        document, _ = calibrated_document(settings)
        assert document["means"]["instance_num"] == cores
    assert caplog.text.count(MEASURING) == 2


def test_off_measures_nothing(settings: HandlerSettings, caplog: pytest.LogCaptureFixture) -> None:
    off = replace(settings, calibrate="off")
    assert calibrated_document(off) == (handler_document(off), "off: the defaults")
    handler = create_handler(off)
    assert handler.info().settings["calibration"] == "off: the defaults"
    handler.close()
    assert MEASURING not in caplog.text


@pytest.mark.parametrize(
    ("overrides", "is_measured"),
    [
        ({"resnet50.max": "3x3x8x8"}, False),
        ({"instance_num": "1"}, True),
        ({"resnet50.instance_num": "1"}, True),
        ({"resnet50.max": "3x3x8x8", "instance_num": "1"}, False),
        ({"resnet50.min": "2x3x8x8", "resnet50.max": "2x3x8x8"}, False),
    ],
)
def test_what_set_gives_stays(
    overrides: dict[str, str],
    is_measured: bool,
    settings: HandlerSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    changed = replace(settings, overrides=overrides)
    document, _ = calibrated_document(changed)
    plain = handler_document(changed)
    for key in overrides:
        name = key.rpartition(".")[2]
        assert document["means"].get(name) == plain["means"].get(name)
        assert document.get(name) == plain.get(name)
    assert (MEASURING in caplog.text) is is_measured


@pytest.mark.parametrize(
    ("parts", "filled_in"),
    [
        ({}, {"max", "instance_num"}),
        ({"table": "max = 3"}, {"instance_num"}),
        ({"table": "instance_num = 1"}, {"max"}),
        ({"globals": "instance_num = 1"}, {"max"}),
        ({"globals": "max = 3", "table": "instance_num = 1"}, set()),
        ({"own": "(max=3)"}, {"instance_num"}),
        ({"table": '"TensorrtTensor::max" = 3'}, {"instance_num"}),
    ],
)
def test_a_file_gets_only_what_it_leaves_open(
    parts: dict[str, str], filled_in: set[str], settings: HandlerSettings, tmp_path: Path
) -> None:
    given = with_file(settings, tmp_path / "file.toml", **parts)
    plain = handler_document(given)["node"]
    document, line = calibrated_document(given)
    node = document["node"]
    assert {key for key in node if node[key] != plain.get(key)} == filled_in
    assert ("nothing to decide" in line) is (not filled_in)
    if "instance_num" in filled_in:
        assert node["instance_num"] == available_cores()
    handler = create_handler(given)
    most = rows(node) if "max" in filled_in else 3
    assert handler.info().settings["max_batch_size"] == str(most)
    handler.close()


def test_a_smallest_batch_of_several_rows_is_no_case_for_a_measurement(
    settings: HandlerSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = with_file(settings, tmp_path / "file.toml", table="min = 2\ninstance_num = 1")
    document, _ = calibrated_document(given)
    assert document == handler_document(given)
    assert MEASURING not in caplog.text


def test_a_model_that_cannot_be_measured_is_served_with_the_defaults(
    settings: HandlerSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    document, line = calibrated_document(settings)
    plain = handler_document(settings)
    node = {**plain["means"], "instance_num": available_cores()}
    assert document == {**plain, "means": node}
    assert line.startswith("the default for max: nothing is measured, because ")
    assert "cannot be written" in line
    assert line in caplog.text


def test_instances_need_no_measurement(
    settings: HandlerSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = with_file(settings, tmp_path / "file.toml", table="max = 4096")
    document, line = calibrated_document(given)
    assert document["node"]["instance_num"] == available_cores()
    assert document["node"]["max"] == 4096
    assert MEASURING not in caplog.text
    assert line == f"nothing to measure: {available_cores()} instances, one for each core"
