"""What is compared, and how it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.command_line import build_parser
from loadtest.errors import LoadTestError
from loadtest.measure.settings import compare_settings
from loadtest.servers.programs import server_command
from loadtest.servers.variants import (
    VARIANTS,
    Workload,
    default_precision,
    default_variants,
    may_use_gpu,
    parse_variants,
    parse_workloads,
)
from loadtest.settings import ServerOptions


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


def test_a_server_may_be_a_front_end_with_replicas() -> None:
    plain, replicas = parse_variants("pipeline,pipeline-2r")
    assert (plain.replicas, replicas.replicas) == (0, 2)
    assert "2 replicas behind a front end" in replicas.description
    workload = Workload("resnet50", "resnet50")
    command = " ".join(server_command(replicas, workload, ServerOptions()))
    assert "--cluster local --replicas 2" in command
    assert "--workers" not in command
    assert "--cluster" not in server_command(plain, workload, ServerOptions())
    with pytest.raises(LoadTestError, match="in-process"):
        parse_variants("baseline,in-process-2r")


def test_a_workload_is_a_model_of_the_zoo_or_a_file(tmp_path: Path) -> None:
    model = tmp_path / "own.onnx"
    model.touch()
    assert parse_workloads(f"resnet50,{model}") == [
        Workload("resnet50", "resnet50"),
        Workload("own", str(model)),
    ]
    with pytest.raises(LoadTestError, match=r"'missing\.onnx' of --workloads does not exist"):
        parse_workloads("missing.onnx")


def test_rows_are_added_only_where_none_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.measure.settings.chosen_images", lambda _: [])
    parse = build_parser().parse_args
    chosen = compare_settings(parse(["compare", "--variants", "baseline,pipeline"]))
    assert not chosen.adds_controls
    usual = compare_settings(parse(["compare"]))
    assert usual.adds_controls
    assert (usual.fits_windows, usual.load.duration_s) == (True, 5.5)
    timed = compare_settings(parse(["compare", "--duration_s", "3"]))
    assert (timed.fits_windows, timed.load.duration_s) == (False, 3.0)


def test_stages_are_profiled_in_a_pipeline_alone() -> None:
    assert VARIANTS["baseline"].with_profiled_stages() == VARIANTS["baseline"]
    arguments = VARIANTS["pipeline"].with_profiled_stages().server_args
    assert arguments == ("--set", "profile_stages=true")


@pytest.mark.parametrize(
    ("engine", "with_gpu", "precision"),
    [("auto", True, "fp16"), ("auto", False, "fp32"), ("onnxruntime", True, "fp32")],
)
def test_the_precision_is_that_of_the_engine(engine: str, with_gpu: bool, precision: str) -> None:
    with_gpu = may_use_gpu(engine, has_gpu=with_gpu)
    assert default_precision(with_gpu=with_gpu) == precision


def test_an_engine_of_the_cpu_is_compared_as_on_a_cpu_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtest.records.machine.has_gpu", lambda: True)
    monkeypatch.setattr("loadtest.measure.settings.chosen_images", lambda _: [])
    for engine, with_control in (("onnxruntime", True), ("openvino", True), ("auto", False)):
        options = build_parser().parse_args(["compare", "--engine", engine, "--name", "x"])
        settings = compare_settings(options)
        assert ("baseline-no-lock" in {it.name for it in settings.variants}) is with_control
        assert settings.servers.precision == ("fp32" if with_control else "fp16")


def test_the_models_output_goes_to_servers_and_upper_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtest.measure.settings.chosen_images", lambda _: [])
    words = ["compare", "--output", "scores", "--output_activation", "sigmoid", "--name", "x"]
    servers = compare_settings(build_parser().parse_args(words)).servers
    assert servers.model_args == ("--output=scores", "--output-activation=sigmoid")


def test_what_decodes_on_the_gpu_does_not_keep_the_aspect_ratio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtest.measure.settings.chosen_images", lambda _: [])
    assert "gpu-auto" not in default_variants(with_gpu=True, keeps_ratio=True)
    words = ["compare", "--variants", "baseline,pipeline-gpu", "--resize", "256"]
    with pytest.raises(LoadTestError, match="--resize: variant 'pipeline-gpu' decodes on the GPU"):
        compare_settings(build_parser().parse_args(words))


def test_a_gpu_host_compares_without_the_control() -> None:
    names = [variant.name for variant in parse_variants(default_variants(with_gpu=True))]
    assert names[:3] == ["baseline", "pipeline-auto", "pipeline-gpu-auto"]
    assert "baseline-no-lock" not in names
    assert "baseline-no-lock" in default_variants(with_gpu=False)
