"""torchpipe's own configuration files: every spelling that is in one of them, as a file of ours.

`torchpipe_files.toml` lists the files with the spellings of each. What a file becomes is what the
worst of its spellings becomes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tomli
from onnx import TensorProto, helper, numpy_helper

from engine.contexts.cuda_device import cuda_available
from pipeline import PipelineConfigError, Status, pipe, register_backend, register_filter
from pipeline.config import read_config
from pipeline.language.document import read_toml

DATA = tomli.loads(Path(__file__).with_name("torchpipe_files.toml").read_text("utf-8"))
SPELLINGS: dict[str, dict[str, Any]] = DATA["spellings"]
FILES: list[dict[str, Any]] = DATA["files"]
# From the best to the worst.
VERDICTS = ("runs", "fails", "gpu", "refused")


@register_backend(name="Own")
class Own:
    """What the examples write in C++: gives its data, boxes and a score."""

    def forward(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            item.update(result=item["data"], _box=[[0, 0, 8, 8], [2, 2, 12, 12]], score=0.5)


@register_filter("own_filter")
def own_filter(_: dict[str, Any]) -> Status:
    return Status.SKIP


def save_model(path: Path, height: int | str, width: int | str) -> None:
    """A classifier of the channels' means."""
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["in"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["means"]),
            helper.make_node("MatMul", ["means", "weights"], ["out"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, ["batch", 3, height, width])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "model.onnx", 8, 8)
    save_model(folder / "open.onnx", "height", "width")
    return folder


@pytest.fixture
def document(
    request: pytest.FixtureRequest, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """A spelling's file, read as any other."""
    monkeypatch.setenv("THRIFTPIPE_CACHE_KEY", "5a" * 32)
    text = SPELLINGS[request.param]["toml"]
    for word, path in (
        ("MODEL", models / "model.onnx"),
        ("OPEN", models / "open.onnx"),
        ("CACHE", tmp_path / "engine.trt"),
        ("FOLDER", tmp_path),
    ):
        text = text.replace(word, str(path))
    file = tmp_path / "file.toml"
    file.write_text(text, "utf-8")
    return read_toml(file)


def named(*verdicts: str) -> Any:
    names = [name for name, spelling in SPELLINGS.items() if spelling["verdict"] in verdicts]
    return pytest.mark.parametrize(
        ("document", "spelling"),
        [pytest.param(name, SPELLINGS[name], id=name) for name in names],
        indirect=["document"],
    )


@named("runs", "fails")
def test_a_file_with_this_spelling_runs(
    document: dict[str, Any], spelling: dict[str, Any], photographs: list[bytes]
) -> None:
    with pipe(document) as running:
        roots = running.config.graph.roots
        item: dict[str, Any] = {"data": photographs[0], "node_name": roots[0]}
        running(item)
    if spelling["verdict"] == "fails":
        assert spelling["words"] in str(item["error"])
    else:
        assert "error" not in item, item["error"]


@named("gpu")
def test_a_file_with_this_spelling_needs_a_gpu_and_nothing_else(
    document: dict[str, Any], spelling: dict[str, Any]
) -> None:
    assert set(spelling) == {"verdict", "toml"}
    assert read_config(document)[1] == []
    if not cuda_available():
        with pytest.raises(PipelineConfigError, match="needs an NVIDIA GPU"):
            pipe(document)


@named("refused")
def test_a_file_with_this_spelling_is_told_why_and_what_to_use(
    document: dict[str, Any], spelling: dict[str, Any]
) -> None:
    mistakes = read_config(document)[1]
    assert any(spelling["words"] in mistake for mistake in mistakes), mistakes


def test_the_list_is_whole() -> None:
    for file in FILES:
        assert set(file) - {"repository"} == {"path", "commit", "verdict", "spellings"}
        assert len(file["commit"]) == 40
        found = {SPELLINGS[name]["verdict"] for name in file["spellings"]}
        assert file["verdict"] == max(found, key=VERDICTS.index), file["path"]
    assert len({(file["path"], file["commit"]) for file in FILES}) == len(FILES)
    assert {name for file in FILES for name in file["spellings"]} == SPELLINGS.keys()


def test_four_of_five_files_run_or_need_a_gpu_alone() -> None:
    refused = [file["path"] for file in FILES if file["verdict"] == "refused"]
    assert len(FILES) - len(refused) >= 75
    assert len(refused) <= len(FILES) // 5 + 1
