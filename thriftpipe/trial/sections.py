"""What a trial shows in the terminal."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from interfaces.image_folder import FoundImages
from loadtest.settings import SCORE_TOLERANCE
from service.handlers.interface import HandlerInfo
from service.labels import Labels
from thriftpipe.screen import FAINT, NAME, heading, table
from thriftpipe.trial.answers import Answer
from thriftpipe.trial.comparison import full_command, serve_command
from thriftpipe.trial.facts import Fact, ModelFacts
from thriftpipe.trial.photos import MOST_DECODED

_SHOWN_REFUSED = 20
_EXACT = "fp32"
# The load test's tolerances are between servers of one precision, which round alike. Beside fp32 a
# lower one differs by more.
_BESIDE_EXACT = 2
# Far below what float32 can tell apart near 1.
_NOTHING = 1e-9


def tell_facts(screen: Console, lines: Sequence[Fact]) -> None:
    """What was found in the model's file."""
    rows = table("", "")
    rows.show_header = False
    rows.columns[0].no_wrap = True
    for line in lines:
        source = f"  ({line.source})" if line.source else ""
        rows.add_row(Text(line.name, NAME), Text.assemble(line.value, (source, FAINT)))
    screen.print(rows)


def tell_images(screen: Console, photos: FoundImages, folder: Path | None) -> None:
    """How many images can be used, and why others cannot.

    Args:
        screen: the terminal.
        photos: what was found.
        folder: where; None for the packaged photographs.
    """
    count = len(photos.usable)
    where = "the packaged photographs" if folder is None else str(folder)
    screen.print(f"{count} image{'s' if count > 1 else ''} of {where} can be used.")
    if count > MOST_DECODED:
        screen.print(f"Of all but {MOST_DECODED} only the headers were read.", style=FAINT)
    if photos.others and folder is not None:
        screen.print(photos.left_out(), style=FAINT)
    if not photos.bad:
        return
    screen.print(Text(f"{len(photos.bad)} cannot be used:", "yellow"))
    problems = photos.problems()
    for problem in problems[:_SHOWN_REFUSED]:
        screen.print(f"  {problem}")
    if len(problems) > _SHOWN_REFUSED:
        screen.print(f"  and {len(problems) - _SHOWN_REFUSED} more")


def tell_answers(screen: Console, answers: Sequence[Answer], labels: Labels) -> None:
    """Both scores of the best classes of each image."""
    rows = table("image", "class", "thriftpipe", "onnxruntime")
    for column in rows.columns[2:]:
        column.justify = "right"
    for answer in answers:
        name = Text(answer.photo.name, NAME)
        if answer.served is None:
            rows.add_row(name, Text(answer.failure, "bold red"), "-", "-")
            continue
        for place, class_id in enumerate(answer.classes):
            rows.add_row(
                name if place == 0 else "",
                Text(labels.names[class_id], no_wrap=True, overflow="ellipsis"),
                f"{answer.served[class_id]:.4f}",
                f"{answer.plain[class_id]:.4f}",
            )
    screen.print(rows)


def tell_verdict(
    screen: Console, answers: Sequence[Answer], info: HandlerInfo, facts: ModelFacts
) -> bool:
    """Say whether the answers are the same but for rounding, and return it."""
    is_exact = info.precision == _EXACT
    tolerance = SCORE_TOLERANCE[info.precision] * (1 if is_exact else _BESIDE_EXACT)
    rounding = f"{tolerance:g} is rounding in {info.precision}"
    largest = max(answer.difference for answer in answers)
    if largest <= tolerance:
        screen.print(
            Text.assemble(
                ("The same answers", "bold green"),
                f": over all {facts.num_classes} classes of {len(answers)} images the scores "
                f"differ by {_shown(largest)} at most (up to {rounding}).",
            )
        )
        if facts.note:
            screen.print(Text(f"note: {facts.note}", "yellow"))
        return True
    worst = ", ".join(it.photo.name for it in answers if it.difference > tolerance)
    by = f"by up to {largest:.2g}" if math.isfinite(largest) else "and some are missing"
    way_out = "" if is_exact else " Without --precision it runs in fp32."
    screen.print(
        Text.assemble(
            ("THE ANSWERS DIFFER", "bold red"),
            f" {by}, where up to {rounding}, for {worst}. Do not trust the answers that "
            f"{info.engine} gives in {info.precision} with this model and these options.{way_out}",
        )
    )
    return False


def _shown(difference: float) -> str:
    return f"{difference:.1g}" if difference > _NOTHING else "0"


def tell_comparison(screen: Console, summary: Mapping[str, Any], report: Path) -> None:
    """What the load test has measured.

    Args:
        screen: the terminal.
        summary: the numbers of the one workload.
        report: the page with all of it.
    """
    screen.print()
    screen.print(_rows_table(summary["variants"]))
    if summary["verdict"] is not None:
        first, *others = summary["verdict"]["sentences"].values()
        screen.print()
        screen.print(first.replace("`", ""), style="bold")
        for sentence in others:
            screen.print(sentence.replace("`", ""))
    where = report.absolute().as_uri()
    screen.print(Text.assemble("Report: ", (where, NAME)), soft_wrap=True)


def _rows_table(variants: Sequence[Mapping[str, Any]]) -> Table:
    rows = table("", "images/s", "x baseline", "TP50 ms", "TP99 ms")
    for column in rows.columns[1:]:
        column.justify = "right"
    for variant in variants:
        ratio, latency_ms = variant["ratio"], variant["latency_ms"]
        rows.add_row(
            Text(variant["name"], NAME),
            f"{variant['images_per_s']['median']:.1f}",
            "" if ratio is None else f"{ratio['median']:.2f}",
            *("" if latency_ms is None else f"{it['value']:.1f}" for it in latency_ms.values()),
        )
    return rows


def tell_next(
    screen: Console, options: Namespace, model: str, images: Path | None, photos: FoundImages
) -> None:
    """The commands that a user may want now."""
    heading(screen, "Next")
    skip_bad = bool(photos.bad)
    for purpose, command in (
        ("the full comparison", full_command(options, model, images, skip_bad=skip_bad)),
        ("serve it", serve_command(options, model)),
    ):
        screen.print(f"# {purpose}", style=FAINT)
        # One line, to be copied.
        screen.print(Text(command, NAME), soft_wrap=True)
