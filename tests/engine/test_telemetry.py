from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.registry import ENGINE_NAMES

PROGRAM = """
import sys
from pathlib import Path

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
from engine.interface import EngineOptions
from engine.onnx_model import OnnxModel
from engine.registry import choose_engine, load_engine

model = OnnxModel.load(sys.argv[2])
engine = load_engine(choose_engine(sys.argv[1]), model, EngineOptions())
engine.create_context().run([(model.inputs[0].allocate(1),)])
"""


@pytest.mark.parametrize("name", [name for name in ENGINE_NAMES if name != "tensorrt"])
def test_engines_report_to_no_one(name: str, small_file: Path, tmp_path: Path) -> None:
    """Not onnxruntime, not openvino: no connection, and no device id left in the home folder."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "PYTHONPATH")}
    subprocess.run(
        [sys.executable, "-c", PROGRAM, name, str(small_file)],
        env={**kept, "HOME": str(home)},
        check=True,
    )
    assert list(home.rglob("*")) == []
