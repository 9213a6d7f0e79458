"""A start that comes to no end says what it is busy with, and ends."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.handlers.slow_start import told_while_slow
from tests.serving import TIMEOUT_S


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier whose Loop has no end: its condition stays true."""
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, [None, 3])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["goes_on"], ["still_goes_on"]),
            helper.make_node("Identity", ["row"], ["next_row"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            row,
        ],
        [
            helper.make_tensor_value_info("still_goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_row", TensorProto.FLOAT, [None, 3]),
        ],
    )
    weights = {"shape": np.array([0, 3], np.int64), "true": np.array(True)}
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Reshape", ["pooled", "shape"], ["rows"]),
            helper.make_node("Loop", ["", "true", "rows"], ["scores"], body=body),
        ],
        "endless",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = tmp_path_factory.mktemp("models") / "endless.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return str(path)


def processes_with(mark: str) -> list[int]:
    """Those that have the text in their environment, as all descendants of a process have."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def arguments(handler: str, model: str) -> list[str]:
    command = [sys.executable, "-m", "service", "--port", "0", "--engine", "onnxruntime"]
    return [*command, "--handler", handler, "--model", model]


@pytest.mark.parametrize(
    "more",
    [
        ("baseline",),
        ("pipeline", "--workers", "2", "--set", "shared_engine=always"),
    ],
    ids=["alone", "workers"],
)
def test_a_model_without_an_end_fails_the_start(more: tuple[str, ...], endless: str) -> None:
    handler, *options = more
    mark = f"WARM_UP_TEST={uuid.uuid4()}"
    result = subprocess.run(
        [*arguments(handler, endless), "--start-timeout-s", "0.2", *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "WARM_UP_TEST": mark.partition("=")[2]},
    )
    assert result.returncode == 2, result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith(
        "error: warming up endless.onnx with onnxruntime takes longer than --start-timeout-s = 0.2"
    )
    assert "Traceback" not in result.stderr
    assert processes_with(mark) == []


def test_sigterm_ends_a_start_that_hangs(endless: str) -> None:
    command = [*arguments("pipeline", endless), "--log-level", "debug"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "warming up endless.onnx" in line:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def test_what_takes_long_is_told_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Semaphore(0)

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
            told.release()

    counting = Counting()
    logger = logging.getLogger("service.handlers.slow_start")
    logger.addHandler(counting)
    try:
        with told_while_slow("building an engine", first_pause_s=0.001):
            for _ in range(3):
                assert told.acquire(timeout=TIMEOUT_S)
    finally:
        logger.removeHandler(counting)
    lines = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"building an engine has taken \d+ s", lines[0])
    assert len(lines) >= 3
