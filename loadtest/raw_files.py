"""The raw files of a measured folder: run.json and latencies.csv.gz.

Reports and plots are made from what `read` returns and from nothing else.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.gpu import GpuReading
from loadtest.measured_run import MeasuredRun, Record, Repeat, Sample, VariantRun, WorkloadRun

SCHEMA_VERSION = 1
RUN_FILE = "run.json"
LATENCY_FILE = "latencies.csv.gz"
_COLUMNS = (
    "workload",
    "variant",
    "repeat",
    "completed_s",
    "latency_ms",
    "image",
    "failed_images",
    "error",
)


def write(folder: Path, run: MeasuredRun) -> None:
    """Write both raw files, in place of an earlier run's.

    Raises:
        LoadTestError: the folder cannot be written.
    """
    document = asdict(run)
    rows: list[tuple[object, ...]] = []
    for workload, contents in zip(run.workloads, document["workloads"], strict=True):
        for repeat, entry in zip(workload.repeats, contents["repeats"], strict=True):
            entry["requests"] = len(repeat.records)
            entry["failed_images"] = sum(record.failed_images for record in repeat.records)
            del entry["records"]
            rows.extend(_row(workload.name, repeat, record) for record in repeat.records)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LATENCY_FILE).write_bytes(_compressed_csv(rows))
        text = json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=1)
        (folder / RUN_FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise LoadTestError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error


def _row(workload: str, repeat: Repeat, record: Record) -> tuple[object, ...]:
    return (
        workload,
        repeat.variant,
        repeat.repeat,
        f"{record.completed_s:.6f}",
        f"{record.latency_ms:.4f}",
        record.image,
        record.failed_images,
        record.error,
    )


def _compressed_csv(rows: Sequence[tuple[object, ...]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows)
    # Without a file name and time in its header the same rows give the same bytes.
    return gzip.compress(text.getvalue().encode("utf-8"), mtime=0)


def read(folder: Path) -> MeasuredRun:
    """Read both raw files.

    Raises:
        LoadTestError: a file is missing, damaged, or of another schema version.
    """
    try:
        document = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        with gzip.open(folder / LATENCY_FILE, "rt", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        version = document.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise LoadTestError(
                f"{str(folder / RUN_FILE)!r} has schema version {version}, "
                f"this program reads {SCHEMA_VERSION}"
            )
        records: dict[tuple[str, str, int], list[Record]] = {}
        for row in rows:
            key = (row["workload"], row["variant"], int(row["repeat"]))
            records.setdefault(key, []).append(
                Record(
                    completed_s=float(row["completed_s"]),
                    latency_ms=float(row["latency_ms"]),
                    image=row["image"],
                    failed_images=int(row["failed_images"]),
                    error=row["error"],
                )
            )
        workloads = [_workload(entry, records) for entry in document.pop("workloads")]
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


def _workload(
    entry: dict[str, Any], records: dict[tuple[str, str, int], list[Record]]
) -> WorkloadRun:
    repeats = []
    for repeat in entry.pop("repeats"):
        kept = records.get((entry["name"], repeat["variant"], repeat["repeat"]), [])
        if len(kept) != repeat.pop("requests"):
            raise ValueError(
                f"{LATENCY_FILE} has {len(kept)} requests of {entry['name']} "
                f"{repeat['variant']} repeat {repeat['repeat']}, {RUN_FILE} says otherwise"
            )
        del repeat["failed_images"]
        samples = [
            Sample(gpus=[GpuReading(**gpu) for gpu in sample.pop("gpus")], **sample)
            for sample in repeat.pop("samples")
        ]
        repeats.append(Repeat(samples=samples, records=kept, **repeat))
    variants = [VariantRun(**variant) for variant in entry.pop("variants")]
    return WorkloadRun(variants=variants, repeats=repeats, **entry)
