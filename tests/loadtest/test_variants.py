"""What is compared, in which order and by which commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.errors import LoadTestError
from loadtest.variants import (
    VARIANTS,
    ServerOptions,
    Workload,
    interleaved,
    limit_command,
    parse_variants,
    parse_workloads,
    server_command,
)


def test_repeats_run_forwards_and_backwards_in_turn() -> None:
    variants = [VARIANTS[name] for name in ("baseline", "pipeline", "in-process")]
    order = [(repeat, variant.name[0]) for repeat, variant in interleaved(variants, 3)]
    assert "".join(letter for _, letter in order) == "bpi" + "ipb" + "bpi"
    assert [repeat for repeat, _ in order] == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_an_unknown_variant_gets_the_closest_name() -> None:
    with pytest.raises(LoadTestError, match="'pipline'; did you mean 'pipeline'"):
        parse_variants("baseline,pipline")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names nothing"),
        ("baseline,baseline", "more than once"),
        ("in-process", "names no server"),
    ],
)
def test_lists_that_make_no_comparison_are_refused(text: str, message: str) -> None:
    with pytest.raises(LoadTestError, match=message):
        parse_variants(text)


def test_a_workload_is_a_model_of_the_zoo_or_a_file(tmp_path: Path) -> None:
    model = tmp_path / "own.onnx"
    model.touch()
    assert parse_workloads(f"resnet50,{model}") == [
        Workload("resnet50", "resnet50"),
        Workload("own", str(model)),
    ]
    with pytest.raises(LoadTestError, match=r"'missing\.onnx' of --workloads does not exist"):
        parse_workloads("missing.onnx")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("baseline", ["--handler", "baseline"]),
        ("baseline-no-lock", ["--no-lock"]),
        ("pipeline", ["--config", "own.toml"]),
        ("pipeline-timeout-0", ["--set", "batching_timeout=0"]),
    ],
)
def test_a_variant_becomes_a_command_of_the_service(name: str, words: list[str]) -> None:
    options = ServerOptions(engine="openvino", precision="bf16", config="own.toml", port=1234)
    command = server_command(VARIANTS[name], Workload("m", "m"), options)
    text = " ".join(command)
    assert " ".join(words) in text
    assert "-m service" in text
    assert "--model m --engine openvino --precision bf16 --host 127.0.0.1 --port 1234" in text


def test_the_launch_prefix_stands_before_every_measured_command() -> None:
    options = ServerOptions(launch_prefix=("taskset", "-c", "0"))
    workload = Workload("m", "m")
    for command in (
        server_command(VARIANTS["baseline"], workload, options),
        limit_command(workload, options, "torch", Path("photos"), 2.5),
    ):
        assert command[:3] == ["taskset", "-c", "0"]
    assert "--engine torch" in " ".join(command)
    assert "--img_dir photos --duration_s 2.5" in " ".join(command)
