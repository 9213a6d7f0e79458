"""Items of several rows, `request_size`, on their way through a real engine process."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.engine_process.launcher import connect_or_start
from pipeline.engine_process.messages import EngineProcessSettings
from pipeline.engine_process.remote_node import RemoteNode
from pipeline.runtime.task import Task, WaitingCall
from service.logs.log_settings import LogSettings
from service.processes.shared_folder import SharedFolder
from tests.robustness.colour_model import SIDE, write_colour_model

LARGEST = 4
BACKENDS = f"""
from pathlib import Path

from pipeline import register_backend


@register_backend(name="RecordedRows", keys=("record", "gate"))
class RecordedRows:
    def init(self, config):
        self._record, self._gate = Path(config["record"]), Path(config["gate"])
        self._waits = True

    def max(self):
        return {LARGEST}

    def forward(self, items):
        with self._record.open("a") as record:
            record.write(",".join(str(item.get("request_size", 1)) for item in items) + "\\n")
        if self._waits:
            self._waits = False
            self._gate.read_bytes()
        for item in items:
            item["result"] = item["data"]
"""


def test_rows_of_items_that_wait_never_exceed_max(tmp_path: Path) -> None:
    """The first item is at work while three of three rows come."""
    gate, record, backends = tmp_path / "gate", tmp_path / "record", tmp_path / "backends.py"
    os.mkfifo(gate)
    backends.write_text(BACKENDS)
    document: dict[str, Any] = {
        "colours": {
            "backend": "S[RecordedRows,TensorrtTensor]",
            "model": str(write_colour_model(tmp_path).model),
            "min": f"1x3x{SIDE}x{SIDE}",
            "max": f"{LARGEST}x3x{SIDE}x{SIDE}",
            "instance_num": 1,
            "record": str(record),
            "gate": str(gate),
        }
    }
    settings = EngineProcessSettings(
        document, "colours", "onnxruntime", str(backends), 0, LogSettings()
    )
    folder = SharedFolder()
    node = RemoteNode("colours", partial(connect_or_start, folder.path, settings))
    sizes = (1, 3, 3, 3)
    call = WaitingCall(len(sizes), None)
    tasks = [
        Task({"data": torch.zeros(rows, 3, SIDE, SIDE), "request_size": rows}, call)
        for rows in sizes
    ]
    try:
        node.start()
        node.submit(tasks[0])
        with gate.open("wb"):  # once the first one is at work
            for task in tasks[1:]:
                node.submit(task)
        call.wait()
    finally:
        node.stop()
        folder.close()
    assert [task.error for task in tasks] == [None] * len(sizes)
    assert [tuple(task.item["result"].shape) for task in tasks] == [(rows, 3) for rows in sizes]
    assert record.read_text().split() == ["1", "3", "3", "3"]
