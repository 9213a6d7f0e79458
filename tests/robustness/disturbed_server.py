"""A server of which the engine's node has a backend that disturbs."""

from __future__ import annotations

from pathlib import Path

from tests.robustness.colour_model import SIDE, ColourModel

_BACKENDS_FILE = Path(__file__).with_name("disturbed_backend.py")


def disturbed_server(folder: Path, colours: ColourModel, backend: str, settings: str) -> list[str]:
    """Arguments for the colours with that backend before the engine, in the engine's node."""
    config = folder / f"{backend}.toml"
    config.write_text(_disturbed_toml(colours.model, backend, settings), encoding="utf-8")
    return [
        *("--handler", "pipeline", "--labels", str(colours.labels)),
        *("--config", str(config), "--backends", str(_BACKENDS_FILE)),
    ]


def _disturbed_toml(model: Path, backend: str, settings: str) -> str:
    return f"""batching_timeout = 5

[decoder]
instance_num = 2
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
resize_h = {SIDE}
resize_w = {SIDE}
color = "rgb"
next = "colours"

[colours]
{settings}
backend = "S[{backend},TensorrtTensor]"
model = "{model}"
min = "1x3x{SIDE}x{SIDE}"
max = "4x3x{SIDE}x{SIDE}"
mean = "0, 0, 0"
std = "255, 255, 255"
"""
