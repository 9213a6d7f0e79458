"""run.json and latencies.csv.gz."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.errors import LoadTestError
from loadtest.records import raw_files
from loadtest.records.run import PartRun, Run, StagedRequest, StageRun, Window


@pytest.fixture
def run(repeat_of: Callable[..., Window], run_of: Callable[..., Run]) -> Run:
    return run_of(["baseline"], [repeat_of("baseline", 1, [12.5, 13.25, 9.0], 1.5)])


def test_what_was_written_is_read_again(run: Run, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    assert raw_files.read(tmp_path) == run


def test_the_same_run_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        raw_files.write(tmp_path / name, run)
    for file in (raw_files.RUN_FILE, raw_files.LATENCY_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_run_json_says_how_many_requests_a_repeat_had(run: Run, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    document = json.loads((tmp_path / raw_files.RUN_FILE).read_text())
    repeat = document["workloads"][0]["windows"][0]
    assert (repeat["requests"], repeat["failed_images"], repeat["length_s"]) == (3, 0, 1.5)


@pytest.fixture
def rich_run(repeat_of: Callable[..., Window], run_of: Callable[..., Run]) -> Run:
    """A run with all that run.json and the tables can hold."""
    repeats = [
        replace(repeat_of("baseline", 1, [12.5, 13.25], 1.5), clients=clients, client_processes=2)
        for clients in (1, 4)
    ]
    records = [replace(record, lag_ms=0.125) for record in repeats[0].records]
    repeats.append(replace(repeats[0], repeat=2, clients=None, offered_per_s=9.5, records=records))
    run = run_of(["baseline"], repeats)
    run.workloads[0].parts.append(PartRun("engine-alone", "what", {"1": 100.5}, 2, ""))
    requests = [StagedRequest(9.5, {"net.queue": 1.25, "net.forward": 3.5})] * 2
    run.workloads[0].stages.append(StageRun("baseline", 10, ["--set", "a=b"], requests, ""))
    return run


def test_parts_stages_and_clients_are_read_again(rich_run: Run, tmp_path: Path) -> None:
    raw_files.write(tmp_path, rich_run)
    assert raw_files.read(tmp_path) == rich_run


def test_a_growing_run_is_on_disk_after_every_window(rich_run: Run, tmp_path: Path) -> None:
    """Also where the writer was killed in the middle of the next window's rows."""
    workload = rich_run.workloads[0]
    first = replace(
        rich_run,
        workloads=[replace(workload, windows=workload.windows[:1], stages=[])],
        complete=False,
    )
    writer = raw_files.RawWriter(tmp_path)
    writer.save(first)
    assert raw_files.read(tmp_path) == first
    path = tmp_path / raw_files.LATENCY_FILE
    with path.open("ab") as file:
        file.write(path.read_bytes()[:30])
    assert raw_files.read(tmp_path) == first


def test_saving_again_adds_only_what_came_since(rich_run: Run, tmp_path: Path) -> None:
    workload = rich_run.workloads[0]
    writer = raw_files.RawWriter(tmp_path)
    for count in (0, 1, 2):
        part = replace(workload, windows=workload.windows[:count])
        writer.save(replace(rich_run, workloads=[part], complete=False))
    writer.save(rich_run)
    assert raw_files.read(tmp_path) == rich_run


def test_a_folder_of_the_first_version_is_read(run: Run, tmp_path: Path) -> None:
    """It has no parts, no stages, no clients of a window, and is complete."""
    raw_files.write(tmp_path, run)
    document = json.loads((tmp_path / raw_files.RUN_FILE).read_text())
    document["schema_version"] = 1
    for name in ("complete", "checks", "results"):
        del document[name]
    for name in ("parts", "stages"):
        del document["workloads"][0][name]
    window = document["workloads"][0]["windows"].pop()
    for name in ("clients", "client_processes"):
        del window[name]
    for sample in window["samples"]:
        percents, memory = sample.pop("gpu_percents"), sample.pop("gpu_memory_bytes")
        pairs = zip(percents, memory, strict=True)
        sample["gpus"] = [{"utilisation_percent": p, "memory_used_bytes": m} for p, m in pairs]
    del document["workloads"][0]["windows"]
    document["workloads"][0]["repeats"] = [window]
    (tmp_path / raw_files.RUN_FILE).write_text(json.dumps(document))
    assert raw_files.read(tmp_path) == run


def test_a_folder_without_raw_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match=r"not a measured folder: it has no run\.json"):
        raw_files.read(tmp_path)


def test_latencies_that_do_not_fit_the_run_are_refused(run: Run, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    document = json.loads((tmp_path / raw_files.RUN_FILE).read_text())
    document["workloads"][0]["windows"][0]["requests"] = 4
    (tmp_path / raw_files.RUN_FILE).write_text(json.dumps(document))
    with pytest.raises(LoadTestError, match="has 3 requests"):
        raw_files.read(tmp_path)


@pytest.mark.parametrize("damage", [b"{", b"[]", b"{}"])
def test_a_damaged_run_file_is_refused(damage: bytes, run: Run, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    (tmp_path / raw_files.RUN_FILE).write_bytes(damage)
    with pytest.raises(LoadTestError, match="damaged"):
        raw_files.read(tmp_path)


def test_a_truncated_latency_file_is_refused(run: Run, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    path = tmp_path / raw_files.LATENCY_FILE
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(LoadTestError, match="damaged"):
        raw_files.read(tmp_path)


def test_another_schema_version_is_refused(run: Run, tmp_path: Path) -> None:
    raw_files.write(tmp_path, run)
    document = json.loads((tmp_path / raw_files.RUN_FILE).read_text())
    document["schema_version"] = 99
    (tmp_path / raw_files.RUN_FILE).write_text(json.dumps(document))
    with pytest.raises(LoadTestError, match="schema version 99"):
        raw_files.read(tmp_path)
