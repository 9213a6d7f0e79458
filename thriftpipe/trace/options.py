"""The options of the command `trace`."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

from interfaces.image_folder import SKIP_BAD_IMAGES
from interfaces.kinds import SWITCH, Bounds, Kind
from interfaces.names import closest_name_hint
from interfaces.options import REQUIRED, Command, Option, picked
from pipeline.commands.pipeline_arguments import IMAGE_LIMITS
from pipeline.commands.pipeline_arguments import OPTIONS as OF_PIPELINE

# What can be seen of more is less, and a page with them gets slow.
_MOST_IMAGES = 5000

PAGE, EVENTS = ".html", ".json"
"""How the names of files end, by which each gets its format."""


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in (PAGE, EVENTS):
        hint = closest_name_hint(path.suffix, (PAGE, EVENTS)).rstrip(".")
        raise ArgumentTypeError(
            f"must end in {PAGE}, a page to read, or {EVENTS}, events for Perfetto, got "
            f"{text!r}{hint}"
        )
    if not path.parent.is_dir():
        raise ArgumentTypeError(f"there is no folder {path.parent}, to write {path.name} into")
    return path


OPTIONS = (
    *picked(
        OF_PIPELINE,
        f"file set backends engine photos {SKIP_BAD_IMAGES} {IMAGE_LIMITS} node clients",
    ),
    Option(
        "images",
        Kind("whole number", int, Bounds(1, _MOST_IMAGES), metavar="N"),
        100,
        "how many images, of all clients together; each side gets the same",
    ),
    Option(
        "output",
        Kind("file", _output),
        REQUIRED,
        "the timeline: a page (.html), or Chrome trace events (.json), which Perfetto opens; may "
        "be given more than once",
        "TRACE.html|TRACE.json",
        short="o",
        is_repeated=True,
    ),
    Option("no_baseline", SWITCH, False, "leave the locked baseline out"),
)
COMMAND = Command(
    "draw what each instance did and when, from a real run",
    " ".join(option.name for option in OPTIONS),
    description="Run images through the pipeline in this process, and through the locked baseline "
    "with the same model, and draw both: a bar for every batch of every instance, with its size "
    "and the reason why it left, and for what each request waited. Needs the packages of the extra "
    "'bench'. Exit code 0 if all images have a result, 1 if one failed, 2 if the pipeline cannot "
    "be loaded.",
)
