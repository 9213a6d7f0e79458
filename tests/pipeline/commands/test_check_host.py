"""`python -m pipeline check`: what `run` will be refused for, before anything is loaded."""

from __future__ import annotations

import importlib.util
import os
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engine.contexts.cuda_device import cuda_available
from engine.errors import EngineError
from engine.zoo import ZOO_NAMES
from pipeline import PipelineConfigError, pipe
from pipeline.backends.registry import backend_class, backend_names
from pipeline.commands.dispatch import main
from pipeline.commands.node_checks import check_nodes
from pipeline.config import read_config
from pipeline.findings import Findings

RIGHT, MISTAKES, WRONG_COMMAND_LINE, MISSING_HERE = range(4)
KEY = "0123456789abcdef" * 4


@pytest.fixture
def check(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Checked:
    return Checked(folder, tmp_path, capsys)


class Checked:
    """Checks a file with the model's node and some more lines in it."""

    def __init__(self, folder: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.place, self.capsys = folder, place, capsys

    def __call__(self, *lines: str, model: str | None = None, options: str = "") -> Code:
        file = self.place / "checked.toml"
        text = [
            *("[model]", 'backend = "TensorrtTensor"', "mean = [0, 0, 0]", "std = [1, 1, 1]"),
            f'model = "{model or self.folder / "channels.onnx"}"',
        ]
        file.write_text("\n".join([*text, *lines]))
        code = main(["check", str(file), *options.split()])
        if model not in ZOO_NAMES:
            engine = options.removeprefix("--engine ") or "auto"
            assert loads(file, engine) == (code == RIGHT), "run sees what check has seen"
        shown = self.capsys.readouterr().out.replace(f"{file}: ", "").splitlines()
        found = [line for line in shown if line.startswith(("mistake", "missing", "warning"))]
        return Code(code, found)


def loads(config: Path | dict[str, Any], engine: str = "auto") -> bool:
    """Whether a pipe can be made of it."""
    try:
        pipe(config, engine=engine).close()
    except (PipelineConfigError, EngineError):
        return False
    return True


class Code:
    def __init__(self, code: int, found: list[str]) -> None:
        self.code, self.found = code, found

    def has(self, *beginnings_and_words: tuple[str, str]) -> bool:
        """Whether these were found, in this order, and nothing else."""
        pairs = zip(self.found, beginnings_and_words, strict=True)
        return all(line.startswith(start) and words in line for line, (start, words) in pairs)


def test_what_can_be_loaded_has_no_findings(check: Checked) -> None:
    checked = check(f'"model::cache" = "{check.place}/engine.cache"', 'max = "4x3x8x8"')
    assert (checked.code, checked.found) == (RIGHT, [])


def test_int8_without_images_is_a_mistake(check: Checked) -> None:
    checked = check('precision = "int8"')
    assert checked.code == MISTAKES
    assert checked.has(("mistake: [model]", "precision int8 needs images to calibrate with"))
    images = f'calibration_images = "{check.folder}"'
    checked = check('precision = "int8"', images)
    assert checked.has(("mistake: [model]", "1 of 3 images cannot be used; remove them, or"))
    checked = check('precision = "int8"', images, "skip_bad_images = true")
    assert checked.has(("mistake: [model]", "has 2 images that can be used; give at least 3"))
    checked = check('precision = "int8"', 'calibration_images = "/no/photos"')
    assert checked.has(("mistake: [model]", "calibration_images: there is no folder /no/photos"))


def test_what_int8_cannot_do_with_the_model_is_a_mistake(check: Checked) -> None:
    for name, level in (("a", 10), ("b", 90), ("c", 200)):
        cv2.imwrite(str(check.place / f"{name}.png"), np.full((16, 16, 3), level, np.uint8))
    images = f'calibration_images = "{check.place}"'
    assert check('precision = "int8"', images).code == RIGHT
    checked = check('precision = "int8"', images, '"precision::fp32" = "no_such_layer"')
    assert checked.code == MISTAKES
    assert checked.has(("mistake: [model] precision::fp32: 'no_such_layer'", "no layer's name"))
    # Layers of the packaged model are not known before it is exported.
    layer = '"precision::fp32" = "layer1"'
    assert check('precision = "int8"', images, layer, model="resnet50").code == RIGHT
    checked = check('precision = "int8"', "min = 4", "max = 2")
    assert checked.has(
        ("mistake: [model] min = 4 is more than max = 2", ""),
        ("mistake: [model]", "precision int8 needs images"),
    )


def test_a_folder_of_images_that_no_int8_needs_is_a_warning(check: Checked) -> None:
    checked = check('calibration_images = "/no/photos"')
    assert checked.code == RIGHT
    assert checked.has(("warning: [model]", "there is no folder /no/photos, as int8 would need"))


def test_a_cache_that_cannot_be_used_is_found(
    check: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THRIFTPIPE_CACHE_KEY", raising=False)
    checked = check('"model::cache" = "/no/such/x.encrypted"', 'precision = "int8"')
    assert checked.code == MISTAKES
    assert checked.has(
        ("mistake: [model] cannot write the engine cache", "no folder /no/such; make the folder"),
        ("mistake: [model]", "an encrypted engine cache needs a key"),
        ("mistake: [model]", "precision int8 needs images"),
    )
    # The engine that keeps nothing has no use for it.
    checked = check('"model::cache" = "/no/such/x.encrypted"', options="--engine torch")
    assert checked.code == RIGHT


def test_a_key_is_read_before_the_model(check: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = f'"model::cache" = "{check.place}/x.encrypted"'
    key = check.place / "cache.key"
    key.write_text("not a key")
    key.chmod(0o600)
    checked = check(cache, f'"model::key_file" = "{key}"')
    assert checked.has(("mistake: [model] the key in", "is not 64 hexadecimal digits"))
    monkeypatch.setenv("THRIFTPIPE_CACHE_KEY", KEY)
    assert check(cache).code == RIGHT


def test_a_package_that_is_missing_is_told_apart_from_mistakes(
    check: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without_cryptography(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "cryptography" else find(name, package)

    monkeypatch.setattr("engine.cache.encrypted_file.find_spec", without_cryptography)
    monkeypatch.setenv("THRIFTPIPE_CACHE_KEY", KEY)
    checked = check(f'"model::cache" = "{check.place}/x.encrypted"')
    assert checked.code == MISSING_HERE
    assert checked.has(("missing here: [model]", "pip install 'thriftpipe[encryption]'"))
    monkeypatch.delenv("THRIFTPIPE_CACHE_KEY")
    checked = check(f'"model::cache" = "{check.place}/x.encrypted"')
    assert checked.code == MISTAKES
    assert [line.partition(":")[0] for line in checked.found] == ["mistake", "missing here"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_a_warning(check: Checked) -> None:
    locked = check.place / "locked"
    locked.mkdir(mode=0o500)
    checked = check(f'"model::cache" = "{locked}/engine.cache"')
    assert checked.code == RIGHT
    assert checked.has(("warning: [model] model::cache", "prepared at every start"))


def test_a_file_that_is_no_model_is_a_mistake(check: Checked) -> None:
    text = check.place / "text.onnx"
    text.write_text("no model")
    checked = check(model=str(text))
    assert checked.code == MISTAKES
    assert checked.has(("mistake: [model]", "is not an ONNX model: it starts with byte b'n'"))
    cut = check.place / "cut.onnx"
    content = (check.folder / "channels.onnx").read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    checked = check(model=str(cut))
    assert checked.code == MISTAKES
    assert checked.has(("mistake: [model]", "is not an ONNX model"))
    checked = check(model=str(check.folder / "chanels.onnx"))
    assert checked.has(("mistake: [model]", "did you mean"))


def test_what_does_not_suit_the_model_is_a_mistake_each(check: Checked) -> None:
    checked = check('max = "4x3x16x16"', 'output = "outputt"')
    assert checked.code == MISTAKES
    assert checked.has(
        ("mistake: [model]", "has no output 'outputt'; did you mean 'output'?"),
        ("mistake: [model] max = 4x3x16x16", "one row of the model's input is 3x8x8"),
    )
    # The packaged model, which is not exported for it.
    checked = check('max = "4x3x16x16"', 'postprocessor = "SoftmaxCpu"', model="resnet50")
    assert checked.has(
        ("mistake: [model] max = 4x3x16x16", "one row of the model's input is 3x224x224"),
        ("mistake: [model] postprocessor = SoftmaxCpu", "gives probabilities already"),
        ("warning: [model]", "declares"),
    )


def test_a_size_that_nothing_fixes_is_a_mistake(check: Checked) -> None:
    sizes = ["batch", 3, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["input"], ["output"])],
        "open",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, sizes)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, check.place / "open.onnx")
    checked = check(model=str(check.place / "open.onnx"))
    assert checked.code == MISTAKES
    assert checked.has(("mistake: [model]", "has no fixed size"))
    assert check('max = "1x3x8x8"', model=str(check.place / "open.onnx")).code == RIGHT


@pytest.mark.skipif(cuda_available(), reason="for a host without a GPU")
def test_a_host_without_a_gpu_is_told_apart_from_mistakes(check: Checked) -> None:
    decoder = ['next = "d"', "[d]", 'backend = "S[DecodeTensor,ResizeTensor]"']
    checked = check(*decoder, "resize_h = 8", "resize_w = 8")
    assert checked.code == MISSING_HERE
    assert checked.has(
        ("missing here: [d] DecodeTensor needs an NVIDIA GPU", "use DecodeMat"),
        ("missing here: [d] ResizeTensor needs an NVIDIA GPU", "use ResizeMat"),
    )
    checked = check("device_id = 1")
    assert checked.code == RIGHT
    assert checked.has(("warning: [model] device_id = 1", "runs there"))
    checked = check(options="--engine tensorrt")
    assert checked.code == MISSING_HERE
    assert checked.has(("missing here: [model]", "engine 'tensorrt' needs an NVIDIA GPU"))


@pytest.mark.skipif(cuda_available(), reason="operators on the GPU would be loaded")
@pytest.mark.parametrize("others", [{}, {"resize_h": 8, "resize_w": 8}])
def test_check_and_run_agree_on_every_operator(others: dict[str, int]) -> None:
    differ = []
    for name in sorted(backend_names()):
        cls = backend_class(name)
        # Not what other tests have registered.
        if hasattr(cls, "adapted") or not cls.__module__.startswith("pipeline.backends."):
            continue
        document = {"node": {"backend": name, **others}}
        config, mistakes = read_config(document)
        findings = Findings(mistakes)
        check_nodes(config.nodes.values(), "auto", findings)
        if loads(document) == bool(findings.mistakes or findings.missing):
            differ.append((name, findings))
    assert not differ


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/no/such.toml"], "there is no folder /no"),
        (["{file}", "--engine", "onxruntime"], "did you mean 'onnxruntime'?"),
    ],
)
def test_a_wrong_command_line_is_no_finding(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(file=folder / "channels.toml") for word in words]
    assert main(["check", *given]) == WRONG_COMMAND_LINE
    shown, error = capsys.readouterr()
    assert (shown, message in error) == ("", True)
