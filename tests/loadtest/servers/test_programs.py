"""The commands that start what is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.command_line import build_parser
from loadtest.errors import LoadTestError
from loadtest.measure.settings import compare_settings
from loadtest.servers.programs import server_command, upper_bound_command
from loadtest.servers.variants import VARIANTS, Workload, parse_variants
from loadtest.settings import ServerOptions


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
        ("engine-alone", False, "--decode cpu --part engine --batch_sizes 1,2,4 "),
        ("engine-alone", True, "--decode cpu --part engine --batch_sizes 1,4,8,16,32 "),
        ("engine-alone-gpu", True, "--decode gpu --part engine --batch_sizes 1,4,8,16,32 "),
        ("decode-alone-cpu", True, "--decode cpu --part decode --batch_sizes 1 "),
        ("decode-alone-gpu", True, "--decode gpu --part decode --batch_sizes 1,4,8,16,32 "),
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
    assert variant.workers == 4
    assert variant.decodes_on_gpu
    command = " ".join(server_command(variant, Workload("m", "m"), ServerOptions()))
    assert "--workers 4" in command
    assert "--decode gpu" in command
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


@pytest.mark.parametrize(("name", "place"), [("pipeline", "cpu"), ("pipeline-gpu", "gpu")])
def test_a_pipeline_decodes_where_its_name_says(name: str, place: str) -> None:
    """And never where the service would by default."""
    command = " ".join(server_command(VARIANTS[name], Workload("m", "m"), ServerOptions()))
    assert f"--decode {place}" in command


def test_what_decodes_on_the_gpu_takes_no_configuration_of_ones_own() -> None:
    """The service refuses --config beside --decode."""
    options = ServerOptions(config="own.toml")
    command = server_command(VARIANTS["pipeline-gpu"], Workload("m", "m"), options)
    assert "--config" not in command
    command = server_command(VARIANTS["pipeline"], Workload("m", "m"), options)
    assert "--decode" not in command


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
