"""The raw files of a measured folder: run.json and tables as NAME.csv.gz.

Reports and plots are made from them and from nothing else. The tables grow by one gzip member a
window, which any reader of gzip takes for one stream, and run.json is replaced as a whole after it:
so a command that is killed at any moment leaves a folder that can be read.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError, UsageError
from loadtest.records.run import (
    Check,
    PartRun,
    Record,
    Run,
    Sample,
    StagedRequest,
    StageRun,
    VariantRun,
    Window,
    WorkloadRun,
)

SCHEMA_VERSION = 3
# Folders without a version are of robustness runs.
_READABLE_VERSIONS = (None, 1, 2, SCHEMA_VERSION)
RUN_FILE = "run.json"
LATENCY_FILE = "latencies.csv.gz"
STAGE_FILE = "stage_times.csv.gz"
_LATENCY_COLUMNS = (
    "workload",
    "variant",
    "repeat",
    "clients",
    "completed_s",
    "latency_ms",
    "image",
    "failed_images",
    "error",
    "lag_ms",
    "worker",
)
_STAGE_COLUMNS = ("workload", "variant", "request", "stage", "ms")
# The client's own measurement stands in the table of stages under this name.
_LATENCY_STAGE = ""

_Row = Sequence[object]
_WindowKey = tuple[str, str, int, int | None]


class RawWriter:
    """Writes a run that still grows: every `save` adds what came since the last one.

    Args:
        folder: where to write. The files of an earlier run are replaced by the first `save`, so
            that a run that fails before it costs nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has_saved = False
        self._saved_windows: set[_WindowKey] = set()
        self._saved_stages: set[tuple[str, str]] = set()

    def save(self, run: Run) -> None:
        """Write run.json, and add the windows and stage times that are not in the tables yet.

        Raises:
            LoadTestError: the folder cannot be written.
        """
        with one_line_errors(self.folder):
            if not self.has_saved:
                self.folder.mkdir(parents=True, exist_ok=True)
                for name in (RUN_FILE, LATENCY_FILE, STAGE_FILE):
                    (self.folder / name).unlink(missing_ok=True)
                if run.workloads:
                    self._append(LATENCY_FILE, [_LATENCY_COLUMNS])
                self.has_saved = True
            for workload in run.workloads:
                for window in workload.windows:
                    key = (workload.name, window.variant, window.repeat, window.clients)
                    if key not in self._saved_windows:
                        self._append(LATENCY_FILE, list(_latency_rows(workload.name, window)))
                        self._saved_windows.add(key)
                for stages in workload.stages:
                    if (workload.name, stages.variant) not in self._saved_stages:
                        header = [] if self._saved_stages else [_STAGE_COLUMNS]
                        self._append(STAGE_FILE, [*header, *_stage_rows(workload.name, stages)])
                        self._saved_stages.add((workload.name, stages.variant))
            # A reader finds the earlier file or the later one, never a part.
            draft = self.folder / f".{RUN_FILE}"
            draft.write_text(_document(run), encoding="utf-8")
            draft.replace(self.folder / RUN_FILE)

    def _append(self, name: str, rows: Sequence[_Row]) -> None:
        if rows:
            with (self.folder / name).open("ab") as file:
                file.write(_compressed(rows))


@contextmanager
def one_line_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusal into one line that names the folder."""
    try:
        yield
    except OSError as error:
        raise LoadTestError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error


def write(folder: Path, run: Run) -> None:
    """Write the raw files of a whole run, in place of an earlier run's.

    Raises:
        LoadTestError: the folder cannot be written.
    """
    RawWriter(folder).save(run)


def write_table(folder: Path, name: str, columns: Sequence[str], rows: Sequence[_Row]) -> None:
    """Write a table of its own as NAME.csv.gz; the same rows give the same bytes."""
    with one_line_errors(folder):
        shortened = [
            [f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows
        ]
        (folder / f"{name}.csv.gz").write_bytes(_compressed([columns, *shortened]))


def read_table(folder: Path, name: str) -> list[dict[str, str]]:
    """What `write_table` wrote, a dictionary a row; empty where there is no such table."""
    path = folder / f"{name}.csv.gz"
    return list(_rows(path, partial=False)) if path.exists() else []


def _document(run: Run) -> str:
    """What run.json holds: everything but the rows of the two tables."""
    slim = replace(
        run,
        workloads=[
            replace(
                workload,
                windows=[replace(window, records=[], samples=[]) for window in workload.windows],
                stages=[replace(stages, requests=[]) for stages in workload.stages],
            )
            for workload in run.workloads
        ],
    )
    document = {"schema_version": SCHEMA_VERSION, **asdict(slim)}
    for workload, entry in zip(run.workloads, document["workloads"], strict=True):
        for window, kept in zip(workload.windows, entry["windows"], strict=True):
            kept["samples"] = [{"at_s": s.at_s, **s.values} for s in window.samples]
            kept["requests"] = len(window.records)
            kept["failed_images"] = sum(record.failed_images for record in window.records)
            del kept["records"]
        for stages, kept in zip(workload.stages, entry["stages"], strict=True):
            kept["requests"] = len(stages.requests)
    results = document.pop("results")
    text = json.dumps(document, indent=1)
    # Long lists of their own: an entry a line.
    lines = []
    for key, value in results.items():
        is_long = isinstance(value, list) and value and isinstance(value[0], dict)
        entries = ",\n   ".join(json.dumps(entry) for entry in value) if is_long else ""
        lines.append(
            f"  {json.dumps(key)}: " + (f"[\n   {entries}\n  ]" if is_long else json.dumps(value))
        )
    return text[:-2] + ',\n "results": {\n' + ",\n".join(lines) + "\n }\n}\n"


def _latency_rows(workload: str, window: Window) -> Iterator[_Row]:
    is_open = window.offered_per_s is not None
    for record in window.records:
        yield (
            workload,
            window.variant,
            window.repeat,
            "" if window.clients is None else window.clients,
            f"{record.completed_s:.6f}",
            f"{record.latency_ms:.4f}",
            record.image,
            record.failed_images,
            record.error,
            f"{record.lag_ms:.4f}" if is_open or record.lag_ms else "",
            record.worker,
        )


def _stage_rows(workload: str, stages: StageRun) -> Iterator[_Row]:
    for number, request in enumerate(stages.requests):
        for name, value_ms in ((_LATENCY_STAGE, request.latency_ms), *request.stages_ms.items()):
            yield (workload, stages.variant, number, name, f"{value_ms:.4f}")


def _compressed(rows: Sequence[_Row]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    # Without a file name and time in its header the same rows give the same bytes.
    return gzip.compress(text.getvalue().encode("utf-8"), mtime=0)


def thin(folder: Path) -> None:
    """Leave of each request what tables are made of: latency to 0.01 ms, failed images, error.

    Completion times become NaN and names of images empty. The rows of a window are sorted by
    latency, behind those with an error, so that neighbours are alike and gzip makes them small.
    Tables stay as they are: they tell percentiles to 0.01 ms, and rounding keeps ranks.

    Raises:
        LoadTestError: the raw files cannot be read, or the folder cannot be written.
    """
    rows: list[_Row] = [_LATENCY_COLUMNS]
    if not (workloads := read(folder).workloads):
        raise UsageError(f"{str(folder)!r} has no {LATENCY_FILE} to thin")
    for workload in workloads:
        for window in workload.windows:
            records = [
                replace(
                    r,
                    completed_s=math.nan,
                    latency_ms=round(r.latency_ms, 2),
                    image="",
                    lag_ms=0.0 if window.offered_per_s is None else round(r.lag_ms, 2),
                    worker="",
                )
                for r in window.records
            ]
            # Errors keep their order, of which the report shows the first.
            records.sort(key=lambda r: 0.0 if r.error else r.latency_ms)
            rows += _latency_rows(workload.name, replace(window, records=records))
    with one_line_errors(folder):
        draft = folder / f".{LATENCY_FILE}"
        draft.write_bytes(_compressed(rows))
        draft.replace(folder / LATENCY_FILE)


def read(folder: Path) -> Run:
    """Read the raw files.

    Raises:
        LoadTestError: a file is missing, damaged, or of another schema version.
    """
    document = read_document(folder)
    with _damaged_as_one_line(folder):
        partial = not document.get("complete", True)
        records: dict[_WindowKey, list[Record]] = {}
        staged: dict[tuple[str, str], list[StagedRequest]] = {}
        if document["workloads"]:
            records = _read_latencies(folder / LATENCY_FILE, partial=partial)
            staged = _read_stages(folder / STAGE_FILE, partial=partial)
        workloads = [_workload(entry, records, staged) for entry in document.pop("workloads")]
        checks = [Check(**check) for check in document.pop("checks")]
        return Run(workloads=workloads, checks=checks, **document)


def read_document(folder: Path) -> dict[str, Any]:
    """What run.json holds, in its present form: windows with counts, without single requests.

    Raises:
        LoadTestError: it is missing, damaged, or of another schema version.
    """
    with _damaged_as_one_line(folder):
        return _upgraded(json.loads((folder / RUN_FILE).read_text(encoding="utf-8")), folder)


@contextmanager
def _damaged_as_one_line(folder: Path) -> Iterator[None]:
    """Make one line of the error if the folder is no measured one, or its files are damaged."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(
            f"{str(folder)!r} is not a measured folder: it has no {Path(error.filename).name}; "
            "make one with `python -m loadtest compare`"
        ) from error
    except (OSError, EOFError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise LoadTestError(
            f"the raw files in {str(folder)!r} are damaged: {type(error).__name__}: {error}"
        ) from error


def _upgraded(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A document as the present version has it.

    Versions 1 and 2 call windows repeats and nest GPUs in samples; runs of the runtime (1) and of
    robustness (None) have their results beside the rest. What an older one lacks is empty.
    """
    version = document.pop("schema_version", None)
    if version not in _READABLE_VERSIONS:
        raise LoadTestError(
            f"{str(folder / RUN_FILE)!r} has schema version {version}, this program reads "
            f"{', '.join(map(str, _READABLE_VERSIONS[1:]))}"
        )
    names = {field.name for field in fields(Run)}
    results = {key: document.pop(key) for key in [*document] if key not in names | {"promises"}}
    checks = [
        {"met" if key == "kept" else key: value for key, value in promise.items()}
        for promise in document.pop("promises", [])
    ]
    for workload in document.get("workloads", []):
        workload["windows"] = workload.pop("repeats", workload.get("windows"))
        for window in workload["windows"]:
            for sample in window["samples"]:
                if (gpus := sample.pop("gpus", None)) is not None:
                    sample["gpu_percents"] = [gpu["utilisation_percent"] for gpu in gpus]
                    sample["gpu_memory_bytes"] = [gpu["memory_used_bytes"] for gpu in gpus]
    return {"workloads": [], "checks": checks, "results": results, **document}


def _rows(path: Path, *, partial: bool) -> Iterator[dict[str, str]]:
    """The rows of a table; that of a partial run may end in the middle of a member."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        while True:
            try:
                row = next(reader, None)
            except EOFError:
                if not partial:
                    raise
                return
            if row is None:
                return
            yield row


def _read_latencies(path: Path, *, partial: bool) -> dict[_WindowKey, list[Record]]:
    records: dict[_WindowKey, list[Record]] = {}
    for row in _rows(path, partial=partial):
        clients = int(row["clients"]) if row.get("clients") else None
        key = (row["workload"], row["variant"], int(row["repeat"]), clients)
        records.setdefault(key, []).append(
            Record(
                completed_s=float(row["completed_s"]),
                latency_ms=float(row["latency_ms"]),
                image=row["image"],
                failed_images=int(row["failed_images"]),
                error=row["error"],
                lag_ms=float(row.get("lag_ms") or 0.0),
                worker=row.get("worker") or "",
            )
        )
    return records


def _read_stages(path: Path, *, partial: bool) -> dict[tuple[str, str], list[StagedRequest]]:
    """(workload, variant) to the requests that told their stages, in order."""
    times: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    if path.exists():
        for row in _rows(path, partial=partial):
            requests = times.setdefault((row["workload"], row["variant"]), {})
            requests.setdefault(int(row["request"]), {})[row["stage"]] = float(row["ms"])
    return {
        key: [StagedRequest(stages.pop(_LATENCY_STAGE), stages) for stages in requests.values()]
        for key, requests in times.items()
    }


def _workload(
    entry: dict[str, Any],
    records: dict[_WindowKey, list[Record]],
    staged: dict[tuple[str, str], list[StagedRequest]],
) -> WorkloadRun:
    name = entry["name"]
    windows = []
    for window in entry.pop("windows"):
        key = (name, window["variant"], window["repeat"], window.get("clients"))
        kept = records.get(key, [])
        _check_count(LATENCY_FILE, kept, window.pop("requests"), key)
        del window["failed_images"]
        samples = [Sample(sample.pop("at_s"), sample) for sample in window.pop("samples")]
        windows.append(Window(samples=samples, records=kept, **window))
    stages = []
    for stage in entry.pop("stages", []):
        asked = staged.get((name, stage["variant"]), [])
        _check_count(STAGE_FILE, asked, stage.pop("requests"), (name, stage["variant"]))
        stages.append(StageRun(**{**stage, "requests": asked}))
    parts = [PartRun(**part) for part in entry.pop("parts", [])]
    variants = [VariantRun(**variant) for variant in entry.pop("variants")]
    return WorkloadRun(variants=variants, windows=windows, parts=parts, stages=stages, **entry)


def _check_count(file: str, found: Sequence[object], expected: int, key: _Row) -> None:
    if len(found) != expected:
        raise ValueError(
            f"{file} has {len(found)} requests of {' '.join(map(str, key))}, "
            f"{RUN_FILE} says otherwise"
        )
