"""run.json and latencies.csv.gz."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtest import raw_files
from loadtest.errors import LoadTestError
from loadtest.measured_run import MeasuredRun, Repeat


@pytest.fixture
def run(repeat_of: Callable[..., Repeat], measured_run: Callable[..., MeasuredRun]) -> MeasuredRun:
    return measured_run(["baseline"], [repeat_of("baseline", 1, [12.5, 13.25, 9.0], 1.5)])


def test_what_was_written_is_read_again(run: MeasuredRun, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    assert raw_files.read(tmp_path) == run


def test_the_same_run_gives_the_same_bytes(run: MeasuredRun, tmp_path: Path) -> None:
    for name in ("one", "two"):
        raw_files.write(tmp_path / name, run)
    for file in (raw_files.RUN_FILE, raw_files.LATENCY_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_run_json_says_how_many_requests_a_repeat_had(run: MeasuredRun, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    document = json.loads((tmp_path / raw_files.RUN_FILE).read_text())
    repeat = document["workloads"][0]["repeats"][0]
    assert (repeat["requests"], repeat["failed_images"], repeat["length_s"]) == (3, 0, 1.5)


def test_a_folder_without_raw_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match=r"not a measured folder: it has no run\.json"):
        raw_files.read(tmp_path)


def test_latencies_that_do_not_fit_the_run_are_refused(run: MeasuredRun, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    document = json.loads((tmp_path / raw_files.RUN_FILE).read_text())
    document["workloads"][0]["repeats"][0]["requests"] = 4
    (tmp_path / raw_files.RUN_FILE).write_text(json.dumps(document))
    with pytest.raises(LoadTestError, match="has 3 requests"):
        raw_files.read(tmp_path)


@pytest.mark.parametrize("damage", [b"{", b"[]", b"{}"])
def test_a_damaged_run_file_is_refused(damage: bytes, run: MeasuredRun, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    (tmp_path / raw_files.RUN_FILE).write_bytes(damage)
    with pytest.raises(LoadTestError, match="damaged"):
        raw_files.read(tmp_path)


def test_a_truncated_latency_file_is_refused(run: MeasuredRun, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    path = tmp_path / raw_files.LATENCY_FILE
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(LoadTestError, match="damaged"):
        raw_files.read(tmp_path)


def test_another_schema_version_is_refused(run: MeasuredRun, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    document = json.loads((tmp_path / raw_files.RUN_FILE).read_text())
    document["schema_version"] = 99
    (tmp_path / raw_files.RUN_FILE).write_text(json.dumps(document))
    with pytest.raises(LoadTestError, match="schema version 99"):
        raw_files.read(tmp_path)
