"""`python -m pipeline export`: networks of a user's own, and what the service makes of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.onnx_graph.model import OnnxModel
from engine.onnx_graph.optimization import cpu_session
from pipeline.commands.dispatch import main

NETWORKS = '''
import torch
from torch import nn


class Channels(nn.Module):
    """Scores the mean of each channel; dropout would change them."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.scale.weight)
        self.drop = nn.Dropout(0.5)

    def forward(self, image):
        return self.drop(self.scale(image.mean((2, 3))))


def build():
    return Channels()


class Several(Channels):
    def forward(self, image, ids):
        scores = super().forward(image)
        return {"scores": scores.softmax(1), "more": (scores + ids.sum(1, keepdim=True), image)}


class Fixed(Channels):
    def forward(self, image):
        return super().forward(image).reshape(2, 3)


class Condition(Channels):
    def forward(self, image):
        scores = super().forward(image)
        return 2 * scores if image.mean() > 5 else scores


class Random(Channels):
    def forward(self, image):
        return super().forward(image) + 1000 * torch.rand(1)


class Mixed(Channels):
    def forward(self, image):
        scores = super().forward(image)
        return scores - scores.mean(0)


class Unused(Channels):
    def forward(self, image, other):
        return super().forward(image)


class NoRows(Channels):
    def forward(self, image):
        return super().forward(image).sum()


class Text(Channels):
    def forward(self, image):
        return "scores"


def broken():
    raise OSError("no such dataset")


number = 3
network = Channels()
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a package of networks."""
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "__init__.py").write_text("")
    (tmp_path / "nets" / "own.py").write_text(NETWORKS)
    (tmp_path / "nets" / "bad.py").write_text("\nimport no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "nets"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["build", "Channels", "network"])
def test_a_network_becomes_a_file_that_runs(
    name: str, package: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "labels.txt").write_text("red\ngreen\nblue\n")
    words = ["--input", "3x8x8", "--labels", "labels.txt", "--mean", "0", "--std", "1"]
    assert main(["export", f"nets.own:{name}", "own.onnx", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("own.onnx: ")
    assert lines[1:4] == [
        "takes 'input' float32 N x 3 x 8 x 8",
        "gives 'output' float32 N x 3",
        "scores 3 classes without a softmax; it gets one; as many as labels",
    ]
    assert lines[4].startswith("agrees with torch on batches of 1 and 3 made-up rows")
    declared = OnnxModel.load("own.onnx").declared_normalization
    assert declared is not None
    assert (declared.mean, declared.std) == ((0.0,), (1.0,))
    text = (folder / "channels.toml").read_text()
    (package / "own.toml").write_text(text.replace(str(folder / "channels.onnx"), "own.onnx"))
    words = ["run", "own.toml", str(folder / "red.png"), "--labels", "labels.txt", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["result"]["label"] == "red"


@pytest.mark.usefixtures("package")
def test_several_inputs_and_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--input", "image=3x4x4", "--input", "ids=int64:5"]
    assert main(["export", "nets.own:Several", "own.onnx", *words]) == 0
    shown = capsys.readouterr().out
    assert "takes 'ids' int64 N x 5\n" in shown
    assert "gives 'scores' float32 N x 3\ngives 'output_1' float32 N x 3\n" in shown
    assert "gives 'output_2' float32 N x 3 x 4 x 4\n" in shown


@pytest.mark.usefixtures("package")
def test_weights_are_loaded_first(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"scale.weight": 7 * torch.eye(3)}, "weights.pth")
    words = ["own.onnx", "--input", "3x2x2", "--weights"]
    assert main(["export", "nets.own:build", *words, "weights.pth"]) == 0
    session = cpu_session(Path("own.onnx").read_bytes())
    (scores,) = session.run(None, {"input": np.ones((4, 3, 2, 2), np.float32)})
    assert scores == pytest.approx(np.full((4, 3), 7.0))
    torch.save({"scale.wight": torch.eye(3)}, "weights.pth")
    capsys.readouterr()
    assert main(["export", "nets.own:build", *words, "weights.pth"]) == 2
    assert "1 missing: scale.weight" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("Fixed", [], "does not run for inputs of 1x3x8x8"),
        ("Condition", [], "torch and ONNX differ by"),
        ("Random", [], "torch and ONNX differ by"),
        ("Mixed", [], "own.onnx: its rows depend on each other: output 'output'"),
        ("Unused", ["--input", "other=1"], "no output depends on the input 'other'"),
        ("NoRows", [], "is a lone number; expected 2 rows"),
        ("Text", [], "the network gives a str"),
        ("build", ["--labels", "two.txt"], "labels has 2, the network scores 3 classes"),
    ],
)
def test_what_would_be_wrong_is_not_written(
    name: str,
    words: list[str],
    message: str,
    package: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (package / "two.txt").write_text("a\nb\n")
    (package / "own.onnx").write_text("an older one")
    assert main(["export", f"nets.own:{name}", "own.onnx", "--input", "3x8x8", *words]) == 1
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith(f"error: nets.own:{name} is not exported: ")
    assert message in error[-1]
    assert (package / "own.onnx").read_text() == "an older one"
    assert any("own.py, line" in line for line in error[:-1]) == (name == "Condition")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nets.own:biuld", "own.onnx"], "there is no 'biuld'; did you mean 'build'?"),
        (["nets.own:number", "own.onnx"], "gave a int; expected a torch.nn.Module"),
        (["nets.own:broken", "own.onnx"], "raised OSError: no such dataset ("),
        (["nets.own", "own.onnx"], "named as mypkg.module:factory"),
        (["nets/own.py:build", "own.onnx"], "nets.own:build, not nets/own.py:build"),
        (["nets.bad:build", "own.onnx"], "No module named 'no_such_package' ("),
        (["nets.none:build", "own.onnx"], "cannot import nets.none"),
        (["resnet50", "own.onnx"], "python -m engine.zoo export resnet50"),
        (["nets.own:build", "own.pth"], "is named *.onnx, got own.pth"),
        (["nets.own:build", "no/own.onnx"], "there is no folder no"),
        (["nets.own:build", "own.onnx", "--mean", "0"], "--std is missing"),
        (["nets.own:build", "own.onnx", "--mean", "0.5", "--std", "0.2"], "0..255"),
        (["nets.own:build", "own.onnx", "--labels", "no.txt"], "there is no file no.txt"),
        (["nets.own:build", "own.onnx", "--input", "input=3"], "names that differ"),
    ],
)
def test_what_cannot_begin_is_one_line(
    words: list[str], message: str, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *words[:2], "--input", "input=3x8x8", *words[2:]]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(package.glob("*.onnx"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--input"),
        (["--input", "3xa"], "takes a shape such as 3x224x224"),
        (["--input", "3x-1"], "got '3x-1'"),
        (["--input", "int46:3"], "did you mean 'int64'?"),
        (["--input", "3", "--mean", "a"], "takes one number or three"),
    ],
)
def test_a_mistyped_command_line_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", "nets.own:build", "own.onnx", *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
