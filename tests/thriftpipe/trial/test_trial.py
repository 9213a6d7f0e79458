"""`thriftpipe try`: what is found, the answers beside plain onnxruntime's, and what is wrong."""

from __future__ import annotations

import shlex
import subprocess
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loadtest.command_line import build_parser
from service.handlers.handler_settings import HandlerSettings
from service.handlers.interface import Handler
from service.handlers.table import create_handler
from tests.commands import run_here
from tests.image_models import FORMATS, save_means
from tests.robustness.colour_model import ColourModel, encoded, write_colour_model
from thriftpipe.door.group import run
from thriftpipe.trial import comparison, trial_command
from thriftpipe.trial.answers import Answer

ROOT = Path(__file__).parents[3]
_COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> ColourModel:
    return write_colour_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, colour in enumerate(_COLOURS * 2):
        (folder / f"{colour}{number}.jpg").write_bytes(encoded(colour, 60, 40, seed=number))
    (folder / "broken.jpg").write_bytes(encoded("red", 60, 40)[:200])
    (folder / "text.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def _try(*words: object) -> subprocess.CompletedProcess[str]:
    return run_here(run, "try", *words)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stdout.split())


def _arguments(model: ColourModel) -> list[str]:
    return [str(model.model), "--labels", str(model.labels), "--mean=0", "--std=255"]


def test_a_model_is_shown_asked_and_agrees(
    colours: ColourModel, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    done = _try(*_arguments(colours), "--images", photos, "--skip-compare")
    assert done.returncode == 0, done.stderr
    said = _said(done)
    for expected in (
        "'image' float32 N x 3 x 32 x 32",
        "mean 0, 0, 0, std 255, 255, 255 (--mean and --std)",
        "the file ends in a Softmax: nothing is added (its graph)",
        f"6 images of {photos} can be used.",
        f"left out, as no images: {photos}/notes.txt 2 cannot be used:",
        "broken.jpg: ",
        "text.png: ",
        "The same answers: over all 3 classes of 5 images",
        f"thriftpipe bench --workloads {colours.model} --img-dir {photos} --mean 0 --std 255",
    ):
        assert expected in said, said
    for colour in _COLOURS:
        row = next(line for line in done.stdout.splitlines() if line.startswith(colour))
        _, best, ours, theirs = row.split()
        assert (best, ours) == (colour, theirs)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("channels last, BGR", "layout NHWC (its shape) channels BGR (as given)"),
        ("BGR", "mean 10, 20, 30, std 20, 10, 5 (--mean and --std)"),
        ("grey, channels last", "(pixel - mean) / std, mean 0, std 1 (--mean and --std)"),
        ("grey bytes", "normalisation none: it takes pixels of 0 to 255 as bytes"),
        ("bytes, channels last", "resize shorter side to 12, aspect ratio kept"),
    ],
)
def test_models_agree_whatever_image_they_take(
    kind: str, found: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    of_file, options, _ = FORMATS[kind]
    words = [
        f"--{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in options.items()
    ]
    model = save_means(tmp_path / "means.onnx", **of_file)
    given = ["--images", photos, "--resize=12", "--output-activation=none", "--skip-compare"]
    done = _try(model, *words, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The same answers" in done.stdout
    assert found in _said(done), _said(done)


def _steep_model(folder: Path) -> Path:
    """It tells grey of more than 102.5 in the mean from less, which int8 rounds away."""
    kernel = np.float32([0.37, 0.59, 0.83]).reshape(1, 3, 1, 1) / 255
    steepness = 10_000 / (102.5 * kernel.sum())
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"]),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("Conv", ["positive", "steep", "bias"], ["values"]),
        helper.make_node("GlobalAveragePool", ["values"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "steep",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(np.float32([[[[steepness]]], [[[0]]]]), "steep"),
            numpy_helper.from_array(np.float32([-10_000, 0]), "bias"),
        ],
    )
    path = folder / "steep.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_answers_that_differ_are_told_loudly(tmp_path: Path) -> None:
    folder = tmp_path / "grey"
    folder.mkdir()
    for lighter_rows in range(13, 20):
        grey = np.full((32, 32, 3), 102, np.uint8)
        grey[:lighter_rows] = 103
        cv2.imwrite(str(folder / f"{lighter_rows}.png"), grey)
    int8 = ["--precision=int8", "--engine=onnxruntime", f"--calibration-images={folder}"]
    done = _try(
        _steep_model(tmp_path), "--images", folder, "--mean=0", "--std=1", *int8, "--skip-compare"
    )
    assert done.returncode == 1, done.stdout
    assert "THE ANSWERS DIFFER by up to" in _said(done)


def test_scores_that_are_missing_or_not_finite_differ() -> None:
    scores = np.float32([0.2, 0.8])
    assert Answer(Path("a"), scores, scores).difference == 0
    for other in (None, np.float32([0.1, 0.2, 0.7]), np.float32([np.nan, 1])):
        assert Answer(Path("a"), other, scores).difference == float("inf")
    assert Answer(Path("a"), scores, scores[::-1]).classes == [1, 0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none.onnx"], "none.onnx"),
        (["efficientnet"], "did you mean 'efficientnet_lite0'?"),
        (["--images", "nowhere"], "nowhere"),
        (["--engine", "onxruntime"], "did you mean 'onnxruntime'?"),
        (["--mean", "1,2,3"], "--mean and --std go together"),
        (["--output-dir", "/proc/none"], "output folder '/proc/none' cannot be written"),
    ],
)
def test_what_cannot_be_tried_is_one_line(
    words: list[str], told: str, colours: ColourModel, photos: Path
) -> None:
    given = words if words[0].endswith(("onnx", "net")) else [str(colours.model), *words]
    if "--images" not in given:
        given += ["--images", str(photos)]
    done = _try(*given)
    assert done.returncode == 2
    message = done.stderr.splitlines()[-1]
    assert message.startswith("error: ")
    assert told in message


def test_the_comparison_is_the_load_tests_own() -> None:
    given = Namespace(mean=(1.0, 2.0, 3.0), std=(4.0,), engine=None, output_dir="out")
    words = comparison.comparison_words(given, "my model.onnx", Path("photos"), 8100)
    options = build_parser().parse(words)
    assert (options.workloads, options.img_dir, options.mean) == (
        *("my model.onnx", "photos", "1,2,3"),
    )
    assert (options.keep_servers, options.port, options.output_dir) == (True, 8100, "out")
    _, *full = shlex.split(
        comparison.full_command(given, "my model.onnx", Path("photos"), skip_bad=True)
    )
    assert full[:3] == ["bench", "--workloads", "my model.onnx"]
    assert build_parser().parse(["compare", *full[1:]]).name == "my model"


def test_on_a_gpu_host_the_cpu_decodes_for_both_sides(
    colours: ColourModel, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime is asked with the CPU's pixels, and what was tried is what is to be served."""
    asked: list[HandlerSettings] = []

    def create(name: str, settings: HandlerSettings) -> Handler:
        asked.append(settings)
        return create_handler(name, settings)

    monkeypatch.setattr(trial_command, "cuda_available", lambda: True)
    monkeypatch.setattr(trial_command, "create_handler", create)
    done = _try(*_arguments(colours), "--images", photos, "--skip-compare")
    assert done.returncode == 0, done.stderr
    assert [settings.decode for settings in asked] == ["cpu"]
    assert "thriftpipe serve --model" in done.stdout
    assert "--decode cpu" in done.stdout


def test_both_handlers_are_compared_in_the_end(
    colours: ColourModel, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # One server for half a second; the load test's own tests run more.
    monkeypatch.setattr(comparison, "VARIANTS", ("baseline",))
    monkeypatch.setattr(comparison, "_REPEATS", 1)
    monkeypatch.setattr(comparison, "_WINDOW_S", 0.5)
    done = _try(*_arguments(colours), "--images", photos)
    assert done.returncode == 0, done.stderr
    assert "baseline" in done.stdout
    assert (tmp_path / "results" / "local-try" / "report.md").is_file()
