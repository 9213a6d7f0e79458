"""`python -m pipeline check` and `run`: real processes, real files, a tiny model."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.contexts.cuda_device import cuda_available
from pipeline.commands.dispatch import main
from pipeline.commands.pipeline_arguments import BENCH, RUN
from service.images.decode_memory import DECODE_MEMORY
from service.options.server_settings import ServerSettings


def pipeline(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_run_classifies_and_bad_files_are_told_before_anything_starts(folder: Path) -> None:
    images = [folder / name for name in ("red.png", "text.png", "missing.png", "blue.png")]
    words = (
        *("run", folder / "channels.toml", *images, "--labels", folder / "labels.txt"),
        *("--top", "2", "--repeat", "3", "--profile"),
    )
    refused = pipeline(*words)
    assert (refused.returncode, refused.stdout) == (2, "")
    missing, text, last = refused.stderr.splitlines()
    assert missing.startswith(f"there is no file {images[2]}")
    assert text.startswith(f"{images[1]}: 8 bytes that do not decode as an image")
    assert last.startswith("error: 2 of 4 images cannot be used; ")
    assert last.endswith("with --skip-bad-images")
    done = pipeline(*words, "--skip-bad-images")
    assert done.returncode == 0, done.stderr
    red, blue = done.stdout.split(str(folder / "blue.png"))
    assert red.startswith(f"{folder / 'red.png'}: red 0.9")
    assert "2. 0." in red
    assert "3. 0." not in red
    assert blue.startswith(": blue 0.8")
    for stage in (
        "decoder  queue",
        "model    queue",
        "forward",
        "DecodeMat",
        "onnxruntime.infer",
    ):
        assert stage in blue
    *told, skipped, loading, loaded = done.stderr.splitlines()
    assert told == [missing, text]
    assert skipped == "skipping 2 of 4 images"
    assert loading.startswith("loading ")
    assert "model x 1 (channels.onnx, onnxruntime fp32)" in loaded


def test_run_takes_folders_and_tells_all_that_is_wrong(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(folder / "channels.toml")
    shutil.copy(folder / "blue.png", tmp_path)
    shutil.copy(folder / "red.png", tmp_path)
    assert main(["run", file, str(tmp_path), "--json"]) == 0
    files = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
    assert files == [str(tmp_path / "blue.png"), str(tmp_path / "red.png")]
    (tmp_path / "empty").mkdir()
    assert main(["run", file, str(tmp_path / "empty")]) == 2
    assert "no images in" in capsys.readouterr().err
    words = ["--set", "model.precision=int8", "--set", "model.max=2x3x9x9"]
    assert main(["run", file, str(tmp_path), *words]) == 2
    *_, first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: [model] max = 2x3x9x9")
    assert second.startswith("error: [model] precision int8 needs images")
    words = ["--set", "decoder.backend=DecodMat", "--set", "model.next=nowhere"]
    assert main(["run", file, str(tmp_path), *words]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("error: ") for line in errors)


@pytest.mark.parametrize("command", [RUN, BENCH])
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--max-image-pixels", "599"], "30 x 20, which are 600 pixels; --max-image-pixels allows"),
        (["--max-decoded-bytes", "1000"], "; --max-decoded-bytes allows 1000"),
    ],
)
def test_images_that_cost_too_much_are_told_before_anything_is_loaded(
    command: str,
    words: list[str],
    reason: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The command sets the limit of this process and its children.
    monkeypatch.setattr(DECODE_MEMORY, "limit_bytes", DECODE_MEMORY.limit_bytes)
    monkeypatch.setattr(os, "environ", {**os.environ})
    assert main([command, str(folder / "channels.toml"), str(folder / "red.png"), *words]) == 2
    refused, last = capsys.readouterr().err.splitlines()
    assert refused.startswith(f"{folder / 'red.png'}: ")
    assert reason in refused
    assert last.startswith("error: 1 of 1 images cannot be used; ")


def test_the_limits_are_a_servers_where_none_is_given(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an image whose header says that it is large nothing is decoded."""
    size = (8000).to_bytes(4, "big")
    encoded = (folder / "red.png").read_bytes()
    large = tmp_path / "large.png"
    large.write_bytes(encoded[:16] + size + size + encoded[24:])
    assert main([RUN, str(folder / "channels.toml"), str(large)]) == 2
    refused, _ = capsys.readouterr().err.splitlines()
    allowed = ServerSettings().max_image_pixels
    assert f"64000000 pixels; --max-image-pixels allows {allowed}" in refused
    words = [str(folder / "red.png"), "--max-image-pixels", "600"]
    assert main([RUN, str(folder / "channels.toml"), *words]) == 0


_CLOSED_STDOUT = """
import os, sys
from engine.contexts.cuda_device import cuda_available
from pipeline.commands.dispatch import main
from service.processes.process import leave

def run(command):
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    return main([command, sys.argv[1]])

assert run("show") == 141
leave(run("check"))
"""


def test_show_and_check_end_quietly_when_stdout_is_closed(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CLOSED_STDOUT, str(folder / "channels.toml")],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_show_uses_ascii_where_there_is_nothing_better(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert main(["show", str(folder / "channels.toml")]) == 0
    stdout.seek(0)
    shown = stdout.read()
    assert shown.isascii()
    assert shown.startswith("+-- decoder\n    !\n    model\n")


def test_run_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = str(folder / "labels.txt")
    words = ["run", str(folder / "channels.toml"), str(folder / "red.png"), "--labels", labels]
    assert main([*words, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["file"] == str(folder / "red.png")
    assert [entry["label"] for entry in outcome["result"]["top"]] == ["red", "green", "blue"]
    assert outcome["result"]["score"] == pytest.approx(0.936, abs=0.001)
    assert set(outcome["stage_times_ms"]) == {
        f"{node}.{stage}" for node in ("decoder", "model") for stage in ("queue", "forward")
    }


@pytest.mark.parametrize(
    ("postprocessor", "classes"), [("SoftmaxCpu", 3), ("SoftmaxMax", 1), ("split", 3)]
)
def test_scores_are_probabilities_whatever_the_postprocessor(
    postprocessor: str, classes: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", str(folder / "channels.toml"), str(folder / "red.png"), "--json"]
    assert main([*words, "--set", f"model.postprocessor={postprocessor}"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert result["label"] == "class_0"
    assert result["score"] == pytest.approx(0.936, abs=0.001)
    assert len(result["top"]) == classes


def test_an_output_activation_counts_for_labels_and_scores(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", str(folder / "channels.toml"), str(folder / "red.png"), "--json"]
    assert main([*words, "--set", "model.output_activation=none"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert [entry["score"] for entry in result["top"]] == pytest.approx([14, 11, 10])


def test_what_is_no_classification_is_told_by_type_and_shape(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "forked.toml"
    file.write_text(
        '[decode]\nbackend = "DecodeMat"\nnext = "matrix,tensor"\n'
        '[matrix]\nbackend = "ResizeMat(resize_h=4,resize_w=6)"\n'
        '[tensor]\nbackend = "Mat2Tensor"\n'
    )
    assert main(["run", str(file), str(folder / "red.png")]) == 0
    shown = capsys.readouterr().out
    assert "  matrix: ndarray uint8 (4, 6, 3)\n" in shown
    assert "  tensor: Tensor uint8 (1, 3, 20, 30)\n" in shown


def test_several_roots_need_a_node_to_enter(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "roots.toml"
    file.write_text('[one]\nbackend = "DecodeMat"\n[two]\nbackend = "DecodeMat"\n')
    assert main(["run", str(file), str(folder / "red.png")]) == 2
    assert "one, two" in capsys.readouterr().err
    assert main(["run", str(file), str(folder / "red.png"), "--node", "two"]) == 0
    assert "two  queue" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "{file}", "{image}", "--engine", "onxruntime"], "did you mean 'onnxruntime'?"),
        (
            ["run", "{file}", "{image}", "--labels", "/no/labels"],
            "label file: there is no folder /no",
        ),
        (["run", "{file}", "{image}", "--set", "modle.max=2"], "did you mean 'model'?"),
        (["show", "/no/such.toml"], "cannot read the configuration"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(
    words: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"file": folder / "channels.toml", "image": folder / "red.png"}
    assert main([word.format(**places) for word in words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a command is missing"),
        (["chek"], "did you mean 'check'?"),
        (["show", "a.toml", "--ouput", "x"], "did you mean '--output'?"),
        (["run", "a.toml", "x", "--top", "0"], "at least 1"),
        (["show", "a.toml", "--set", "max"], "--set: takes [NODE.]KEY=VALUE"),
        (["run", "a.toml"], "IMAGE"),
    ],
)
def test_a_mistyped_command_line_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def checked(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, list[str]]:
    file = folder / "checked.toml"
    file.write_text(text)
    code = main(["check", str(file), *options])
    return code, capsys.readouterr().out.replace(f"{file}: ", "").splitlines()


def test_check_lists_the_settings_that_count(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "channels.toml").read_text()
    code, lines = checked(text, folder, capsys, "--set", "model.instance_num=1")
    assert code == 0
    assert lines[0] == "2 nodes, no mistakes"
    rows: list[list[str]] = [line.split() for line in lines]
    assert ["batching_timeout", "5", "ms", "global"] in rows
    assert ["resize_h", "(ResizeMat)", "8", "pixels", "expression"] in rows
    assert ["resize_w", "(ResizeMat)", "8", "pixels", "expression"] not in rows
    assert ["resize_w", "8", "pixels", "node"] in rows
    assert ["max_workspace_size", "2048", "MiB", "default"] in rows
    assert ["max", "2", "rows", "node"] in rows
    assert ["instance_num", "1", "node"] in rows


def test_check_tells_of_countless_mistakes_how_many_there_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = "".join(f"resize_hh{number} = 1\n" for number in range(150))
    (folder / "countless.toml").write_text(f'[a]\nbackend = "ResizeMat"\n{keys}')
    assert main(["check", str(folder / "countless.toml")]) == 1
    *told, last = capsys.readouterr().out.splitlines()
    assert len(told) == 100
    # The file's own keys, and those that it lacks.
    assert int(last.removesuffix(" more").rpartition(" ")[2]) >= 50


def test_check_tells_all_mistakes_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
batching_timeot = 5
instance_num = 0
[a]
backend = "S[DecodMat,ResizMat]"
next = "b,nowhere"
[b]
backend = "S[ResizeMat,,]"
resize_h = "x"
next = "a"
[c]
backend = "TensorrtTensor(max=1,min=4)"
model = "nothere.onnx"
mean = "1,2"
std = "1"
filter = "orr"
[d]
next = "e"
[e]
backend = "ResizeMat"
map = "zz[result:data]"
[f]
backend = "MapReduce"
"""
    code, lines = checked(text, folder, capsys, "--set", "q.x=1")
    # The command line is wrong, too.
    assert code == 2
    assert all(line.startswith("mistake: ") for line in lines)
    expected = [
        "--set q.x=1: unknown node 'q'",
        "global setting: unknown key 'batching_timeot'; did you mean 'batching_timeout'?",
        "global setting: instance_num = 0: expected a whole number",
        "[b]: resize_h = 'x': expected a height in pixels",
        "[a] backend: unknown backend 'DecodMat'; did you mean 'DecodeMat'?",
        "[a] backend: unknown backend 'ResizMat'; did you mean 'ResizeMat'?",
        "S[ResizeMat,,] (column 13)",
        "[c]: unknown filter 'orr'; did you mean 'or'?",
        "[f]: jump is missing",
        "'nowhere', which is no node",
        "nodes form a cycle: a -> b -> a",
        "[e] map: 'zz' is no node",
        "[c] model = 'nothere.onnx': there is no file nothere.onnx",
        "[c] mean takes 1 value or 3 (R, G, B), got 2",
        "[c] min = 4 is more than max = 1",
        "[e] ResizeMat needs resize_h and resize_w",
    ]
    for words in expected:
        assert sum(words in line for line in lines) == 1, words
    assert len(lines) == len(expected)


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("batching_timeout = 0.005", "if seconds were meant, write 5"),
        ("batching_timeout = 2000", "an item may wait 2 s"),
        ("max_workspace_size = 2147483648", "if bytes were meant, write 2048"),
        ("instance_num = 1000", "more would take turns on them"),
    ],
)
def test_check_warns_of_values_that_look_wrong(
    line: str, warning: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f'{line}\n[model]\nbackend = "TensorrtTensor"\nmodel = "resnet50"\n'
    code, lines = checked(text, folder, capsys)
    assert code == 0
    assert [warning in shown for shown in lines if shown.startswith("warning: ")] == [True]


def test_raw_pixels_are_a_warning_of_check_and_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "channels.toml").read_text()
    text = text.replace("mean = [0, 0, 0]\nstd = [1, 1, 1]\n", "")
    code, lines = checked(text, tmp_path, capsys)
    assert code == 0
    assert lines[0].startswith("warning: [model] has neither mean nor std")
    assert main(["run", str(tmp_path / "checked.toml"), str(folder / "red.png")]) == 0
    assert "warning: [model] has neither mean nor std" in capsys.readouterr().err


def test_check_refuses_mean_and_std_for_pixels_of_0_to_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        '[model]\nbackend = "TensorrtTensor"\nmodel = "resnet50"\n'
        'mean = "0.485, 0.456, 0.406"\nstd = "0.229, 0.224, 0.225"\n'
    )
    code, lines = checked(text, folder, capsys)
    assert code == 1
    assert any("std 58.395,57.12,57.375" in line for line in lines)


def test_a_file_that_is_no_toml_is_one_mistake(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = checked("[a", folder, capsys)
    assert code == 1
    assert len(lines) == 1
    code, lines = checked("", folder, capsys)
    assert code == 1
    assert "has no node" in lines[0]


@pytest.mark.parametrize(("name", "code"), [("cpu", 0), ("gpu", 0 if cuda_available() else 3)])
def test_shipped_files_have_no_mistakes(
    name: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", f"pipeline/configs/resnet50_{name}.toml"]) == code
    assert "no mistakes" in capsys.readouterr().out


def test_every_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    wanted: dict[str, Any] = {
        "show": ["--output", "--format", "--set"],
        "check": ["--set", "Exit"],
        "run": ["--labels", "--top", "--engine", "--repeat", "--json", "--profile", "--node"],
    }
    for command, words in wanted.items():
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out
        assert all(word in shown for word in words)
