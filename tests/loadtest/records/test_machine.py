"""What result files say of the machine, and what they must not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.records.machine import client_versions, describe_machine, without_paths


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("--img_dir /home/somebody/photos --port 1", "--img_dir photos --port 1"),
        ("--model=/opt/models/net.onnx", "--model=net.onnx"),
        ("'/srv/my-photos'", "'my-photos'"),
        ("results/local", "results/local"),
        ("./a/b and ../c/d", "./a/b and ../c/d"),
        ("images/s", "images/s"),
        ("1/2", "1/2"),
    ],
)
def test_absolute_paths_become_bare_names(given: str, kept: str) -> None:
    assert without_paths(given) == kept


def test_paths_below_the_current_folder_become_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value = {"model": [f"{tmp_path}/models/net.onnx", 3, None]}
    assert without_paths(value) == {"model": ["models/net.onnx", 3, None]}


def test_the_machine_and_the_versions_are_known() -> None:
    machine = describe_machine()
    assert machine["cpu_model"]
    assert machine["cpu_cores_usable"] >= 1
    assert machine["gpus"] == "n/a"
    assert client_versions()["locust"][0].isdigit()
