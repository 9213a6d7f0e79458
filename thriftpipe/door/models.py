"""`thriftpipe models`: packaged models, the engines of this machine, and what is cached."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.text import Text

from engine.cache.folders import cache_folder
from engine.cpu.cores import available_cores
from engine.errors import EngineError
from engine.registry import AUTO, choose_engine, why_not_here
from engine.zoo.store import DEFAULT_MODEL, ZOO, kept_file
from interfaces.engines import PROVIDERS
from interfaces.sizes import size_text
from interfaces.versions import package_versions
from thriftpipe.screen import FAINT, NAME, console, heading, print_rows

# A file that is made once has its checksum beside it.
_KINDS = (
    ("exported models", re.compile(rf"(?:{'|'.join(ZOO)})-[0-9a-f]{{16}}\.onnx(\.sha256)?")),
    ("quantised models", re.compile(r".+-int8-.+\.onnx(\.sha256)?")),
    ("measurements of engines", re.compile(r"calibration-.+\.(json(\.sha256)?|lock)")),
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
    print_rows(screen, ["name", "what it is", "cached"], [*map(_model_row, found["models"])])
    heading(screen, f"Engines on this machine ({available_cores()} CPU cores)")
    titles = ["engine", "device", "precisions", "version", "what is missing"]
    print_rows(screen, titles, [*map(_engine_row, found["engines"])])
    screen.print(_choice(), style=FAINT)
    cache = found["cache"]
    heading(screen, f"Cache: {cache['folder']}")
    if cache["kinds"]:
        print_rows(screen, ["kind", "files", "size"], [*_cache_rows(cache["kinds"])])
    else:
        screen.print("nothing yet")
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


def _model_row(model: dict[str, Any]) -> list[Text]:
    if model["missing"]:
        cached = Text(model["missing"], "red")
    elif model["file"]:
        cached = Text(size_text(model["bytes"]), "green")
    else:
        cached = Text("made when first used", FAINT)
    name = Text(model["name"], NAME)
    if model["is_default"]:
        name.append(" (default)", FAINT)
    return [name, Text(model["summary"]), cached]


def _engine_row(engine: dict[str, Any]) -> list[Text]:
    device = "NVIDIA GPU" if engine["device"] == "cuda" else "CPU"
    precisions = ", ".join(engine["precisions"])
    reasons = "; ".join(dict.fromkeys(engine["missing"].values()))
    return [
        Text(engine["name"], NAME),
        Text(device),
        Text(precisions, "green") if precisions else Text("none", FAINT),
        Text(engine["version"]),
        Text(reasons, FAINT),
    ]


def _choice() -> str:
    choice = choose_engine(AUTO)
    return f"--engine auto takes {choice.name} in {choice.precision}: {choice.reason}."


def _cache_rows(kinds: dict[str, dict[str, int]]) -> Iterator[list[Text]]:
    for kind in (*(name for name, _ in _KINDS), _OTHERS):
        if kind in kinds:
            cells = (kind, str(kinds[kind]["files"]), size_text(kinds[kind]["bytes"]))
            yield [Text(cell) for cell in cells]
