"""The raw files of a measured folder: run.json, latencies.csv.gz and stage_times.csv.gz.

Reports and plots are made from what `read` returns and from nothing else. The two tables grow by
one gzip member a window, which any reader of gzip takes for one stream, and run.json is replaced
as a whole after it: so a command that is killed at any moment leaves a folder that can be read.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.gpu import GpuReading
from loadtest.measured_run import (
    MeasuredRun,
    PartRun,
    Record,
    Repeat,
    Sample,
    StagedRequest,
    StageRun,
    VariantRun,
    WorkloadRun,
)

SCHEMA_VERSION = 2
# What version 1 lacks (parts, stages, clients of a window) is empty in its runs.
_READABLE_VERSIONS = (1, 2)
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
)
_STAGE_COLUMNS = ("workload", "variant", "request", "stage", "ms")
# The client's own measurement stands in the table of stages under this name.
_LATENCY_STAGE = ""

_Row = tuple[object, ...]
_WindowKey = tuple[str, str, int, int | None]


class RawWriter:
    """Writes a run that still grows: every `save` adds what came since the last one.

    Args:
        folder: where to write. The files of an earlier run are replaced by the first `save`, so
            that a run that fails before it costs nothing.

    Attributes:
        has_saved: whether anything was written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.has_saved = False
        self._saved_windows: set[_WindowKey] = set()
        self._saved_stages: set[tuple[str, str]] = set()

    def _begin(self) -> None:
        with _one_line_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / RUN_FILE).unlink(missing_ok=True)
            (self.folder / LATENCY_FILE).write_bytes(_compressed([_LATENCY_COLUMNS]))
            (self.folder / STAGE_FILE).unlink(missing_ok=True)

    def save(self, run: MeasuredRun) -> None:
        """Add the windows and stage times of `run` that are not on disk yet.

        Raises:
            LoadTestError: the folder cannot be written.
        """
        if not self.has_saved:
            self._begin()
            self.has_saved = True
        for workload in run.workloads:
            for repeat in workload.repeats:
                key = (workload.name, repeat.variant, repeat.repeat, repeat.clients)
                if key not in self._saved_windows:
                    self._append(
                        LATENCY_FILE,
                        [_latency_row(workload.name, repeat, r) for r in repeat.records],
                    )
                    self._saved_windows.add(key)
            for stages in workload.stages:
                if (workload.name, stages.variant) not in self._saved_stages:
                    header = [] if self._saved_stages else [_STAGE_COLUMNS]
                    self._append(STAGE_FILE, [*header, *_stage_rows(workload.name, stages)])
                    self._saved_stages.add((workload.name, stages.variant))
        document = {"schema_version": SCHEMA_VERSION, **_document(run)}
        with _one_line_errors(self.folder):
            # A reader finds the earlier file or the later one, never a part.
            draft = self.folder / f".{RUN_FILE}"
            draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            draft.replace(self.folder / RUN_FILE)

    def _append(self, name: str, rows: Sequence[_Row]) -> None:
        if rows:
            with _one_line_errors(self.folder), (self.folder / name).open("ab") as file:
                file.write(_compressed(rows))


@contextmanager
def _one_line_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusal into one line that names the folder."""
    try:
        yield
    except OSError as error:
        raise LoadTestError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error


def write(folder: Path, run: MeasuredRun) -> None:
    """Write the raw files of a whole run, in place of an earlier run's.

    Raises:
        LoadTestError: the folder cannot be written.
    """
    RawWriter(folder).save(run)


def _document(run: MeasuredRun) -> dict[str, Any]:
    """What run.json holds: everything but the rows of the two tables."""
    slim = replace(
        run,
        workloads=[
            replace(
                workload,
                repeats=[replace(repeat, records=[]) for repeat in workload.repeats],
                stages=[replace(stages, requests=[]) for stages in workload.stages],
            )
            for workload in run.workloads
        ],
    )
    document = asdict(slim)
    for workload, entry in zip(run.workloads, document["workloads"], strict=True):
        for repeat, kept in zip(workload.repeats, entry["repeats"], strict=True):
            kept["requests"] = len(repeat.records)
            kept["failed_images"] = sum(record.failed_images for record in repeat.records)
            del kept["records"]
        for stages, kept in zip(workload.stages, entry["stages"], strict=True):
            kept["requests"] = len(stages.requests)
    return document


def _latency_row(workload: str, repeat: Repeat, record: Record) -> _Row:
    return (
        workload,
        repeat.variant,
        repeat.repeat,
        "" if repeat.clients is None else repeat.clients,
        f"{record.completed_s:.6f}",
        f"{record.latency_ms:.4f}",
        record.image,
        record.failed_images,
        record.error,
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


def read(folder: Path) -> MeasuredRun:
    """Read the raw files.

    Raises:
        LoadTestError: a file is missing, damaged, or of another schema version.
    """
    try:
        document = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        version = document.pop("schema_version")
        if version not in _READABLE_VERSIONS:
            raise LoadTestError(
                f"{str(folder / RUN_FILE)!r} has schema version {version}, this program reads "
                f"{' and '.join(map(str, _READABLE_VERSIONS))}"
            )
        partial = not document.get("complete", True)
        records: dict[_WindowKey, list[Record]] = {}
        for row in _rows(folder / LATENCY_FILE, partial=partial):
            clients = int(row["clients"]) if row.get("clients") else None
            key = (row["workload"], row["variant"], int(row["repeat"]), clients)
            records.setdefault(key, []).append(
                Record(
                    completed_s=float(row["completed_s"]),
                    latency_ms=float(row["latency_ms"]),
                    image=row["image"],
                    failed_images=int(row["failed_images"]),
                    error=row["error"],
                )
            )
        staged = _read_stages(folder / STAGE_FILE, partial=partial)
        workloads = [_workload(entry, records, staged) for entry in document.pop("workloads")]
        return MeasuredRun(workloads=workloads, **document)
    except FileNotFoundError as error:
        raise LoadTestError(
            f"{str(folder)!r} is not a measured folder: it has no {Path(error.filename).name}; "
            "make one with `python -m loadtest compare`"
        ) from error
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise LoadTestError(
            f"the raw files in {str(folder)!r} are damaged: {type(error).__name__}: {error}"
        ) from error


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
    repeats = []
    for repeat in entry.pop("repeats"):
        key = (name, repeat["variant"], repeat["repeat"], repeat.get("clients"))
        kept = records.get(key, [])
        _check_count(LATENCY_FILE, kept, repeat.pop("requests"), key)
        del repeat["failed_images"]
        samples = [
            Sample(gpus=[GpuReading(**gpu) for gpu in sample.pop("gpus")], **sample)
            for sample in repeat.pop("samples")
        ]
        repeats.append(Repeat(samples=samples, records=kept, **repeat))
    stages = []
    for stage in entry.pop("stages", []):
        asked = staged.get((name, stage["variant"]), [])
        _check_count(STAGE_FILE, asked, stage.pop("requests"), (name, stage["variant"]))
        stages.append(StageRun(requests=asked, **stage))
    parts = [PartRun(**part) for part in entry.pop("parts", [])]
    variants = [VariantRun(**variant) for variant in entry.pop("variants")]
    return WorkloadRun(variants=variants, repeats=repeats, parts=parts, stages=stages, **entry)


def _check_count(
    file: str, found: Sequence[object], expected: int, key: tuple[object, ...]
) -> None:
    if len(found) != expected:
        raise ValueError(
            f"{file} has {len(found)} requests of {' '.join(map(str, key))}, "
            f"{RUN_FILE} says otherwise"
        )
