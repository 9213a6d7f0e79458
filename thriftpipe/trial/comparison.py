"""The comparison of a trial: the load test's own, with short windows."""

from __future__ import annotations

import io
import json
import shlex
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from interfaces.image_folder import SKIP_BAD_IMAGES
from interfaces.options import dashed

VARIANTS = ("baseline", "baseline-no-lock", "pipeline-auto")
# Of both handlers and the control, each loaded once: with their starts it takes about a minute. A
# verdict relies on the number of repeats more than on their length.
_REPEATS, _WINDOW_S, _WARMUP_S = 5, 2.0, 0.5
_SUMMARY = "summary.json"
# Options of the trial that the load test has, too.
_PASSED_ON = (
    *("engine", "precision", "weights", "mean", "std", "layout", "color", "input_size"),
    *("resize", "crop", "output", "output_activation", "calibration_images"),
)


def comparison_words(given: Namespace, model: str, images: Path, port: int) -> list[str]:
    """The command line of the load test.

    Args:
        given: the options of the trial; those that were not given are not in it.
        model: what the service calls it.
        images: folder of the images.
        port: the first of as many as there are servers.
    """
    return [
        "compare",
        *_common(given, model, images),
        f"--variants={','.join(VARIANTS)}",
        f"--repeats={_REPEATS}",
        f"--duration_s={_WINDOW_S:g}",
        f"--warmup_s={_WARMUP_S:g}",
        "--stages_s=0",
        "--keep_servers",
        f"--port={port}",
        f"--output_dir={given.output_dir}",
    ]


def compare(words: Sequence[str], typed: str) -> int:
    """Run the load test, whose tables are left to its report.

    Args:
        words: its command line.
        typed: what the user has typed, for the record.

    Returns:
        Its exit code.
    """
    from loadtest.__main__ import start

    with redirect_stdout(io.StringIO()):
        return start(words, typed)


def read_summary(folder: Path) -> dict[str, Any]:
    """The numbers of the one workload; docs/summary.schema.json says what they are."""
    document = json.loads((folder / _SUMMARY).read_text(encoding="utf-8"))
    (workload,) = document["workloads"]
    found: dict[str, Any] = workload
    return found


def full_command(given: Namespace, model: str, images: Path | None, *, skip_bad: bool) -> str:
    """The command line of the full comparison, to be typed.

    Args:
        given: the command line.
        model: what is compared.
        images: their folder, or None for the packaged ones.
        skip_bad: whether some of them cannot be used.
    """
    words = [*_common(given, model, images), f"--name={Path(model).stem}"]
    if skip_bad:
        words.append(f"--{dashed(SKIP_BAD_IMAGES)}")
    return _typed("bench", words)


def serve_command(given: Namespace, model: str) -> str:
    """The command line that serves the model, to be typed."""
    return _typed("serve", [f"--model={model}", *_passed(given, (*_PASSED_ON, "labels", "decode"))])


def _typed(command: str, words: Sequence[str]) -> str:
    """A command line with a space behind each name of an option."""
    parts = [part for word in words for part in word.split("=", 1)]
    return shlex.join(["thriftpipe", command, *parts])


def _common(given: Namespace, model: str, images: Path | None) -> list[str]:
    folder = [] if images is None else [f"--img-dir={images}"]
    return [f"--workloads={model}", *folder, *_passed(given, _PASSED_ON)]


def _passed(given: Namespace, names: Sequence[str]) -> list[str]:
    values = {name: getattr(given, name, None) for name in names}
    return [
        f"--{dashed(name)}={_text(name, value)}"
        for name, value in values.items()
        if value not in (None, "auto")
    ]


def _text(name: str, value: object) -> str:
    between = "x" if name in ("input_size", "crop") else ","
    return between.join(f"{it:g}" for it in value) if isinstance(value, tuple) else str(value)
