"""What is compared, in which order and by which commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.command_line import build_parser
from loadtest.errors import LoadTestError
from loadtest.measure.settings import compare_settings
from loadtest.servers.variants import (
    VARIANTS,
    Workload,
    default_precision,
    default_variants,
    interleaved,
    may_use_gpu,
    parse_variants,
    parse_workloads,
    server_command,
    upper_bound_command,
)
from loadtest.settings import ServerOptions


def test_repeats_run_forwards_and_backwards_in_turn() -> None:
    variants = [VARIANTS[name] for name in ("baseline", "pipeline", "in-process")]
    order = [(repeat, variant.name[0]) for variant, repeat in interleaved(variants, 3)]
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
        upper_bound_command(
            VARIANTS["in-process"], workload, options, "torch", Path("photos"), 6.0, with_gpu=False
        ),
    ):
        assert command[:3] == ["taskset", "-c", "0"]
    assert "--engine torch" in " ".join(command)
    assert "--batch_sizes 1,2,4 --img_dir photos --duration_s 1.5" in " ".join(command)


@pytest.mark.parametrize(
    ("name", "with_gpu", "words"),
    [
        ("engine-alone", False, "--part engine --batch_sizes 1,2,4 "),
        ("engine-alone", True, "--part engine --batch_sizes 1,4,8,16,32 "),
        ("decode-alone-cpu", True, "--part decode --batch_sizes 1 "),
        ("decode-alone-gpu", True, "--part decode --decode gpu --batch_sizes 1,4,8,16,32 "),
    ],
)
def test_a_part_is_measured_at_the_batch_sizes_of_where_it_runs(
    name: str, with_gpu: bool, words: str
) -> None:
    command = upper_bound_command(
        VARIANTS[name],
        Workload("m", "m"),
        ServerOptions(),
        "torch",
        Path("photos"),
        5.0,
        with_gpu=with_gpu,
    )
    assert words in " ".join(command)


def test_a_suffix_runs_a_variant_with_several_workers() -> None:
    (variant,) = parse_variants("pipeline-gpu-4w")
    assert variant.name == "pipeline-gpu-4w"
    assert variant.server_args == ("--decode", "gpu")
    assert variant.workers == 4
    assert variant.decodes_on_gpu
    command = " ".join(server_command(variant, Workload("m", "m"), ServerOptions()))
    assert "--workers 4" in command
    with pytest.raises(LoadTestError, match="'in-process' is no server"):
        parse_variants("baseline,in-process-2w")
    with pytest.raises(LoadTestError, match="'in-process' is no server"):
        parse_variants("baseline,in-process-auto")
    with pytest.raises(LoadTestError, match="unknown variant 'pipline-2w'; did you mean"):
        parse_variants("pipline-2w")


@pytest.mark.parametrize(
    ("name", "workers"),
    [
        ("baseline", "1"),
        ("pipeline", "1"),
        ("pipeline-gpu", "1"),
        ("pipeline-4w", "4"),
        ("baseline-1w", "1"),
        ("pipeline-gpu-auto", "auto"),
    ],
)
def test_the_number_of_server_processes_is_that_of_the_name(name: str, workers: str) -> None:
    """And never what the service would choose by default."""
    (variant,) = parse_variants(name)
    assert variant.name == name
    command = server_command(variant, Workload("m", "m"), ServerOptions())
    given = [command[i + 1] for i, word in enumerate(command) if word == "--workers"]
    assert given == [workers]


def test_rows_are_added_only_where_none_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.measure.settings.chosen_images", lambda _: [])
    parse = build_parser().parse_args
    chosen = compare_settings(parse(["compare", "--variants", "baseline,pipeline"]))
    assert not chosen.adds_controls
    usual = compare_settings(parse(["compare"]))
    assert usual.adds_controls
    assert (usual.fits_windows, usual.load.duration_s) == (True, 6.5)
    timed = compare_settings(parse(["compare", "--duration_s", "3"]))
    assert (timed.fits_windows, timed.load.duration_s) == (False, 3.0)


def test_what_decodes_on_the_gpu_takes_no_configuration_of_ones_own() -> None:
    """The service refuses --config beside --decode."""
    options = ServerOptions(config="own.toml")
    command = server_command(VARIANTS["pipeline-gpu"], Workload("m", "m"), options)
    assert "--config" not in command
    assert command[-2:] == ["--decode", "gpu"]


def test_calibration_images_go_to_servers_and_upper_bounds() -> None:
    options = ServerOptions(precision="int8", calibration_images="few", skip_bad_images=True)
    workload = Workload("m", "m")
    for variant in ("baseline", "pipeline", "pipeline-gpu"):
        command = " ".join(server_command(VARIANTS[variant], workload, options))
        assert "--calibration-images few --skip-bad-images" in command
    bound = upper_bound_command(
        VARIANTS["in-process"], workload, options, "openvino", Path("photos"), 6.0, with_gpu=False
    )
    assert "--calibration-images few --skip-bad-images" in " ".join(bound)


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


def test_how_images_come_to_the_models_size_goes_to_all_that_have_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtest.measure.settings.chosen_images", lambda _: [])
    words = ["compare", "--layout", "nhwc", "--input_size", "32", "--resize", "40", "--crop=32x32"]
    servers = compare_settings(build_parser().parse_args(words)).servers
    assert servers.model_args == ("--layout=nhwc",)
    assert servers.image_args == ("--resize=40", "--input-size=32x32", "--crop=32x32")
    workload, photos = Workload("m", "m"), Path("photos")
    for config, told in ((None, True), ("own.toml", False)):
        options = replace(servers, config=config)
        bound = upper_bound_command(
            VARIANTS["in-process"], workload, options, "torch", photos, 6.0, with_gpu=False
        )
        for command in (server_command(VARIANTS["pipeline"], workload, options), bound):
            assert ("--resize=40" in command) is told
            assert "--layout=nhwc" in command
        assert "--resize=40" in server_command(VARIANTS["baseline"], workload, options)


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
