"""run.json of a measured folder: all that the report is made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.measure.sides import MeasureError

SCHEMA_VERSION = 1
RUN_FILE = "run.json"
# Each of their entries has a line of its own.
_LONG_LISTS = ("windows", "samples")


def write(folder: Path, run: dict[str, Any]) -> None:
    """Write a run, in place of an earlier one.

    Raises:
        MeasureError: the folder cannot be written.
    """
    short = {key: value for key, value in run.items() if key not in _LONG_LISTS}
    text = json.dumps({"schema_version": SCHEMA_VERSION, **short}, indent=1)[:-2]
    for key in _LONG_LISTS:
        if key in run:
            rows = ",\n".join(json.dumps(entry) for entry in run[key])
            text += f',\n "{key}": [\n{rows}\n ]'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN_FILE).write_text(text + "\n}\n", encoding="utf-8")
    except OSError as error:
        raise MeasureError(f"cannot write {str(folder)!r}: {error.strerror}") from error


def read(folder: Path) -> dict[str, Any]:
    """Read what `write` has written.

    Raises:
        MeasureError: there is no such file, it is damaged, or it has another schema version.
    """
    path = folder / RUN_FILE
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        found = run.pop("schema_version")
    except FileNotFoundError as error:
        raise MeasureError(
            f"{str(folder)!r} is not a measured folder: it has no {RUN_FILE}; make one with "
            "`python -m pipeline.measure batching`"
        ) from error
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise MeasureError(f"{str(path)!r} is damaged: {type(error).__name__}: {error}") from error
    if found != SCHEMA_VERSION:
        raise MeasureError(
            f"{str(path)!r} has schema version {found}, this program reads {SCHEMA_VERSION}"
        )
    return dict(run)
