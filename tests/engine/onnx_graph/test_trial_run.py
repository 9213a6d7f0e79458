"""A model is tried out once, within a time limit, and what that shows is kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.errors import EngineError
from engine.onnx_graph import trial_run
from engine.onnx_graph.model import OnnxModel
from engine.onnx_graph.trial import Trial

ProtoFactory = Callable[..., onnx.ModelProto]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, in which every trial is kept."""
    monkeypatch.setenv("THRIFTPIPE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(trial_run, "_WORTH_KEEPING_S", 0.0)
    return tmp_path / "cache"


class Sessions:
    """Counts those of onnxruntime."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        make = onnxruntime.InferenceSession

        def counted(*arguments: object, **options: object) -> object:
            self.count += 1
            return make(*arguments, **options)

        monkeypatch.setattr(onnxruntime, "InferenceSession", counted)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Sessions:
    return Sessions(monkeypatch)


def loaded_by_another_process(path: Path) -> OnnxModel:
    trial_run._trials.clear()
    return OnnxModel.load(path)


def test_another_process_reads_what_a_trial_has_shown(
    cache: Path, sessions: Sessions, tmp_path: Path, small_proto: ProtoFactory
) -> None:
    path = tmp_path / "probabilities.onnx"
    onnx.save(small_proto(), path)
    threads = threading.enumerate()
    tried = loaded_by_another_process(path)
    assert threading.enumerate() == threads
    assert sessions.count == 1
    again = loaded_by_another_process(path)
    assert sessions.count == 1
    assert again.trial == tried.trial
    assert again.trial.ranges["scores"].is_softmax
    (kept,) = cache.glob("*.json")
    assert tried.sha256 in kept.name
    assert onnxruntime.__version__ in kept.name


def test_kept_flaws_are_flaws(
    cache: Path, sessions: Sessions, tmp_path: Path, small_proto: ProtoFactory
) -> None:
    path = tmp_path / "mixed.onnx"
    proto = small_proto()
    proto.graph.node[-1].attribute.append(helper.make_attribute("axis", 0))
    onnx.save(proto, path)
    for _ in range(2):
        with pytest.raises(EngineError, match="its rows depend on each other"):
            loaded_by_another_process(path)
    assert sessions.count == 1
    assert cache.is_dir()


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"version": 0}'], ids=repr)
def test_a_damaged_trial_is_made_again(
    cache: Path, sessions: Sessions, small_file: Path, damage: bytes
) -> None:
    tried = loaded_by_another_process(small_file)
    (kept,) = cache.glob("*.json")
    kept.write_bytes(damage)
    assert loaded_by_another_process(small_file).trial == tried.trial
    assert sessions.count == 2
    loaded_by_another_process(small_file)
    assert sessions.count == 2


def with_endless_loop(batch: int | str) -> onnx.ModelProto:
    """A Loop without an end inside of an If."""
    bool_value = helper.make_tensor_value_info("goes_on", TensorProto.BOOL, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["goes_on"], ["still"]),
            helper.make_node("Identity", ["row"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            bool_value,
            helper.make_tensor_value_info("row", TensorProto.FLOAT, [None, 3]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [None, 3]),
        ],
    )
    looping, passing = (
        helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3])]
        )
        for name, node in (
            ("looped", helper.make_node("Loop", ["", "true", "rows"], ["looped"], body=body)),
            ("passed", helper.make_node("Identity", ["rows"], ["passed"])),
        )
    )
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["rows"]),
        helper.make_node("ReduceMax", ["image"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "zero"], ["is_light"]),
        helper.make_node("If", ["is_light"], ["scores"], then_branch=looping, else_branch=passing),
    ]
    graph = helper.make_graph(
        nodes,
        "endless",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3])],
        [
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(np.array(0.0, np.float32), "zero"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_loop_inside_of_an_if_is_left_to_the_warm_up(
    cache: Path, sessions: Sessions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    onnx.save(with_endless_loop("batch"), tmp_path / "endless.onnx")
    with caplog.at_level(logging.INFO):
        model = loaded_by_another_process(tmp_path / "endless.onnx")
    assert "is not tried out: its loop may have no end" in caplog.text
    assert model.trial == Trial()
    assert sessions.count == 0
    assert not cache.exists()


def test_a_trial_that_does_not_end_is_cut_off(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a fixed batch can be freed only a trial shows: without one it is refused."""
    monkeypatch.setattr(trial_run, "_TIME_LIMIT_OF_FIXED_BATCH_S", 0.2)
    onnx.save(with_endless_loop(4), tmp_path / "endless.onnx")
    message = r"batches of exactly 4 \(it cannot be tried out .*: it has taken more than 0.2 s\)"
    with pytest.raises(EngineError, match=message):
        loaded_by_another_process(tmp_path / "endless.onnx")
    assert not cache.exists()


def test_a_model_that_takes_too_long_is_served_untried(
    cache: Path,
    small_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(trial_run, "_TIME_LIMIT_S", 0.2)
    monkeypatch.setattr(trial_run, "nodes_within", lambda _: [])
    path = small_file.with_name("endless.onnx")
    onnx.save(with_endless_loop("batch"), path)
    with caplog.at_level(logging.INFO):
        model = loaded_by_another_process(path)
    assert model.trial == Trial()
    assert "cannot be tried out: it has taken more than 0.2 s" in caplog.text
    assert not cache.exists()
