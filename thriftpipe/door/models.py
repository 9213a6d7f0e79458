"""`thriftpipe models`: packaged models, the engines of this machine, and what is cached."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from engine.cache.folders import cache_folder
from engine.cpu.cores import available_cores
from engine.errors import EngineError
from engine.registry import AUTO, choose_engine, why_not_here
from engine.zoo.store import DEFAULT_MODEL, ZOO, kept_file
from interfaces.engines import PRECISIONS, PROVIDERS
from interfaces.sizes import size_text
from interfaces.versions import package_versions
from thriftpipe.screen import FAINT, NAME, console, heading, table

# A file that is made once has its checksum beside it.
_KINDS = (
    ("exported models", re.compile(rf"(?:{'|'.join(ZOO)})-[0-9a-f]{{16}}\.onnx(\.sha256)?")),
    ("quantised models", re.compile(r".+-int8-.+\.onnx(\.sha256)?")),
    ("measurements of engines", re.compile(r"calibration-.+\.json(\.sha256)?")),
    ("trials of models", re.compile(r"trial-.+\.json(\.sha256)?")),
)
_OTHERS = "other files"


def list_models(options: Namespace) -> int:
    """Print the lists."""
    found: dict[str, Any] = {"models": [*_models()], "engines": [*_engines()], "cache": _cache()}
    if options.json:
        sys.stdout.write(f"{json.dumps(found)}\n")
        return 0
    screen = console()
    heading(screen, "Packaged models")
    screen.print(_model_table(found["models"]))
    heading(screen, f"Engines on this machine ({available_cores()} CPU cores)")
    screen.print(_engine_table(found["engines"]))
    screen.print(_choice(), style=FAINT)
    cache = found["cache"]
    heading(screen, f"Cache: {cache['folder']}")
    screen.print(_cache_table(cache["kinds"]))
    screen.print(
        "THRIFTPIPE_CACHE_DIR names another folder; all of it may be removed.", style=FAINT
    )
    return 0


def _models() -> Iterator[dict[str, Any]]:
    for name, model in sorted(ZOO.items(), key=lambda it: it[0] != DEFAULT_MODEL):
        entry: dict[str, Any] = {
            "name": name,
            "summary": model.summary,
            "input": [3, *model.size],
            "is_default": name == DEFAULT_MODEL,
            "file": None,
            "bytes": None,
            "missing": "",
        }
        try:
            path = kept_file(name)
        except EngineError as error:
            entry["missing"] = str(error)
        else:
            if path.is_file():
                entry |= {"file": str(path), "bytes": path.stat().st_size}
        yield entry


def _engines() -> Iterator[dict[str, Any]]:
    for provider in PROVIDERS:
        reasons = {
            precision: why_not_here(provider, precision) for precision in provider.precisions
        }
        yield {
            "name": provider.name,
            "device": provider.device,
            "version": package_versions([provider.package])[provider.package],
            "precisions": [precision for precision, why in reasons.items() if not why],
            "missing": {precision: why for precision, why in reasons.items() if why},
        }


def _cache() -> dict[str, Any]:
    folder = cache_folder()
    files = (
        [path for path in sorted(folder.rglob("*")) if path.is_file()] if folder.is_dir() else []
    )
    kinds: dict[str, dict[str, int]] = {}
    for path in files:
        entry = kinds.setdefault(_kind(path), {"files": 0, "bytes": 0})
        entry["files"] += 1
        entry["bytes"] += path.stat().st_size
    return {"folder": str(folder), "kinds": kinds}


def _kind(path: Path) -> str:
    return next((kind for kind, names in _KINDS if names.fullmatch(path.name)), _OTHERS)


def _model_table(models: list[dict[str, Any]]) -> Table:
    rows = table("name", "what it is", "cached")
    for model in models:
        if model["missing"]:
            cached = Text(model["missing"], "red")
        elif model["file"]:
            cached = Text(size_text(model["bytes"]), "green")
        else:
            cached = Text("made when first used", FAINT)
        name = Text(model["name"], NAME)
        if model["is_default"]:
            name.append(" (default)", FAINT)
        rows.add_row(name, model["summary"], cached)
    return rows


def _engine_table(engines: list[dict[str, Any]]) -> Table:
    rows = table("engine", "device", *PRECISIONS, "version", "what is missing")
    for engine in engines:
        missing: dict[str, str] = engine["missing"]
        cells = [
            Text("yes", "green") if name in engine["precisions"] else Text("-", FAINT)
            for name in PRECISIONS
        ]
        device = "NVIDIA GPU" if engine["device"] == "cuda" else "CPU"
        reasons = "; ".join(dict.fromkeys(missing.values()))
        rows.add_row(
            Text(engine["name"], NAME), device, *cells, engine["version"], Text(reasons, FAINT)
        )
    return rows


def _choice() -> str:
    choice = choose_engine(AUTO)
    return f"--engine auto takes {choice.name} in {choice.precision}: {choice.reason}."


def _cache_table(kinds: dict[str, dict[str, int]]) -> Table | str:
    if not kinds:
        return "nothing yet"
    rows = table("kind", "files", "size")
    for kind in (*(name for name, _ in _KINDS), _OTHERS):
        if kind in kinds:
            rows.add_row(kind, str(kinds[kind]["files"]), size_text(kinds[kind]["bytes"]))
    return rows
