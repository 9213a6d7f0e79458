"""Which nodes run in the engine process."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import parse_config
from pipeline.engine_process.split import back_part, entry_of_engine_process, front_part
from pipeline.errors import PipelineConfigError

DOCUMENT: dict[str, Any] = {
    "decode": {"backend": "DecodeMat", "next": "infer"},
    "infer": {"backend": "TensorrtTensor", "model": "m.onnx"},
}


def test_the_engines_node_where_it_is_always() -> None:
    config = parse_config({**DOCUMENT, "shared_engine": "always"})
    assert entry_of_engine_process(config, "onnxruntime") == "infer"
    front, back = front_part(config, "infer"), back_part(config, "infer")
    assert list(front.nodes) == ["decode", "infer"]
    assert list(back.nodes) == ["infer"]
    assert front.sha256 == back.sha256 == config.sha256


@pytest.mark.parametrize("wanted", ["auto", "never"])
def test_none_on_a_cpu_otherwise(wanted: str) -> None:
    config = parse_config({**DOCUMENT, "shared_engine": wanted})
    assert entry_of_engine_process(config, "onnxruntime") is None


def test_nodes_on_the_gpu_go_together() -> None:
    document = {
        "read": {"backend": "DecodeMat", "next": "resize"},
        "resize": {"backend": "ResizeTensor", "next": "back"},
        "back": {"backend": "CpuTensor"},
    }
    config = parse_config(document)
    assert entry_of_engine_process(config, "onnxruntime") == "resize"
    assert list(back_part(config, "resize").nodes) == ["resize", "back"]


def test_none_where_the_workers_would_have_to_go_on() -> None:
    document = {
        "up": {"backend": "GpuTensor", "next": "down"},
        "down": {"backend": "CpuTensor", "next": "last"},
        "last": {"backend": "Mat2Tensor"},
    }
    assert entry_of_engine_process(parse_config(document), "onnxruntime") is None


@pytest.mark.parametrize("backend", ["MapReduce[infer]", "S[DecodeMat,Jump[infer]]"])
def test_none_where_items_jump(backend: str) -> None:
    """They come with keys of their own, and go on where they were sent from."""
    document = {"all": {"backend": backend}, "infer": DOCUMENT["infer"], "shared_engine": "always"}
    assert entry_of_engine_process(parse_config(document), "onnxruntime") is None


def test_the_settings_name_what_is_allowed() -> None:
    with pytest.raises(PipelineConfigError, match='expected "auto", "always" or "never"'):
        parse_config({"node": {"backend": "DecodeMat", "shared_engine": "sometimes"}})
