"""What a run has to show, and how it is written down."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest import machine
from loadtest.errors import LoadTestError


@dataclass(frozen=True)
class Promise:
    """One promise of the server and what was seen of it.

    Attributes:
        name: what is promised.
        bound: the limit, in words.
        measured: what was seen, in words.
        kept: whether the one is within the other.
    """

    name: str
    bound: str
    measured: str
    kept: bool


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def promise_table(promises: Sequence[Promise]) -> str:
    """A row a promise with its verdict."""
    return table(
        ("promise", "bound", "measured", "verdict"),
        [(p.name, p.bound, p.measured, "PASS" if p.kept else "FAIL") for p in promises],
    )


class RunRecord:
    """Writes run.json, report.md and raw tables of one run into a folder.

    Args:
        kind: the command: fuzz, chaos or soak.
        folder: where to.
        command: the command line.
        settings: its options.
    """

    def __init__(
        self, kind: str, folder: Path, command: str, settings: Mapping[str, object]
    ) -> None:
        self.folder = folder
        self._kind = kind
        self._head: dict[str, Any] = {
            "kind": kind,
            "command": command,
            "started": machine.utc_now(),
            "source": machine.describe_source(),
            "machine": machine.describe_machine(()),
            "versions": machine.client_versions(),
            "settings": machine.without_paths(dict(settings)),
        }

    def write_rows(self, name: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A raw table as NAME.csv.gz; the same rows give the same bytes."""
        path = self.folder / f"{name}.csv.gz"
        with (
            path.open("wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        ):
            lines = [",".join(headings)]
            lines += [",".join(_cell(value) for value in row) for row in rows]
            packed.write(("\n".join(lines) + "\n").encode())

    def finish(
        self, promises: Sequence[Promise], sections: Sequence[str], facts: Mapping[str, object]
    ) -> None:
        """Write run.json and report.md, print the table, and judge.

        Args:
            promises: what was to be shown.
            sections: Markdown for the report, behind the promises.
            facts: further results for run.json.

        Raises:
            LoadTestError: a promise is broken.
        """
        record = {
            **self._head,
            "ended": machine.utc_now(),
            "promises": [asdict(promise) for promise in promises],
            **machine.without_paths(dict(facts)),
        }
        (self.folder / "run.json").write_text(json.dumps(record, indent=1) + "\n")
        source, host = self._head["source"], self._head["machine"]
        head = [
            f"# {self._kind.capitalize()}",
            "",
            f"- `{self._head['command']}`",
            f"- {self._head['started']} to {record['ended']}, commit {source['commit']}"
            + (" with uncommitted changes" if source["dirty"] else ""),
            f"- {host['cpu_model']}, {host['cpu_cores_usable']} cores usable, {host['kernel']}, "
            f"Python {host['python']}",
            "",
            promise_table(promises),
            "",
        ]
        (self.folder / "report.md").write_text("\n".join([*head, *sections]) + "\n")
        print(promise_table(promises))
        print(f"results: {self.folder}")
        broken = [promise.name for promise in promises if not promise.kept]
        if broken:
            raise LoadTestError(f"{len(broken)} broken promise(s): {'; '.join(broken)}")


def _cell(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if any(mark in text for mark in ',"\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def read_rows(path: Path) -> list[dict[str, str]]:
    """A table that `write_rows` wrote, a dictionary a row."""
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))
