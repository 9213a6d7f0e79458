"""`thriftpipe try`."""

from __future__ import annotations

import logging
import math
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.errors import EngineError
from engine.zoo import DEFAULT_MODEL
from interfaces.image_folder import FoundImages, evenly
from loadtest.errors import LoadTestError
from loadtest.load.images import DEFAULT_FOLDER, default_images
from loadtest.settings import SCORE_TOLERANCE
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.handlers.interface import HandlerInfo
from service.handlers.table import create_handler
from service.images.decode_memory import limit_decode_memory
from service.images.limit import prepare_opencv
from service.labels import Labels
from service.options.server_settings import ServerSettings
from service.options.validation import handler_settings
from thriftpipe.screen import FAINT, NAME, console, heading, table
from thriftpipe.trial.answers import Answer, compared
from thriftpipe.trial.comparison import (
    VARIANTS,
    compare,
    comparison_words,
    free_ports,
    full_command,
    read_summary,
    serve_command,
)
from thriftpipe.trial.facts import Fact, ModelFacts, facts_of
from thriftpipe.trial.photos import MOST_DECODED, look_through

_HANDLER = "pipeline"
_SHOWN_PHOTOS = 5
# More than short windows send.
_COMPARED_PHOTOS = 200
_SHOWN_REFUSED = 20
_WRONG, _DIFFERENT = 2, 1
_EXACT = "fp32"
# The load test's tolerances are between servers of one precision, which round alike. Beside fp32 a
# lower one differs by more.
_BESIDE_EXACT = 2
# Far below what float32 can tell apart near 1.
_NOTHING = 1e-9


def try_model(options: Namespace) -> int:
    """Look at the model, ask it, and compare the handlers; `--help` says what the code means."""
    screen = console()
    try:
        with _warnings(screen):
            return _try(options, screen)
    except (ConfigurationError, EngineError, LoadTestError) as error:
        complaint = Text.assemble(("error:", "bold red"), f" {' '.join(str(error).split())}")
        console(stderr=True).print(complaint, soft_wrap=True)
        return _WRONG


def _try(options: Namespace, screen: Console) -> int:
    given = _given(options)
    settings = handler_settings(given)
    server = ServerSettings(labels=options.labels)
    prepare_opencv(server.max_image_pixels)
    limit_decode_memory(server.max_decoded_bytes)
    images = Path(options.images) if options.images else None
    photos = look_through(images or _packaged())
    facts = facts_of(settings, options.labels)
    if not options.skip_compare:
        # Imported here because only the comparison needs the load test, which takes its time.
        from loadtest.commands import require_writable

        require_writable(Path(options.output_dir))
    heading(screen, "What is found in the model")
    screen.print(_facts_table(facts.lines))
    heading(screen, "Images")
    _tell_images(screen, photos, images)
    heading(screen, "Answers, beside plain onnxruntime on the same pixels")
    is_same = _ask(screen, settings, facts, photos, options.labels)
    model = options.model or DEFAULT_MODEL
    code = 0 if is_same else _DIFFERENT
    if not is_same or options.skip_compare:
        _tell_next(screen, options, model, images, photos)
        return code
    heading(screen, "Both handlers under load, for about a minute")
    code = _compare(screen, options, model, photos)
    _tell_next(screen, options, model, images, photos)
    return code


def _given(options: Namespace) -> Namespace:
    """The options as the service's command line gives them: those that were not given are not."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    model = given.pop("model")
    if model:
        given["model"] = model
    if options.skip_compare:
        # It is about speed alone, and the servers of the comparison would take it from here.
        given["calibrate"] = "off"
    return Namespace(**given, handler=_HANDLER)


def _packaged() -> Path:
    default_images()
    return DEFAULT_FOLDER


@contextmanager
def _warnings(screen: Console) -> Iterator[None]:
    """Show what the service would write into its log as a warning."""
    shown = _ShownWarnings(screen)
    root = logging.getLogger()
    root.addHandler(shown)
    try:
        yield
    finally:
        root.removeHandler(shown)


class _ShownWarnings(logging.Handler):
    def __init__(self, screen: Console) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning once."""
        text = record.getMessage()
        if text not in self._told:
            self._told.add(text)
            self._screen.print(Text.assemble(("warning:", "yellow"), f" {text}"))


def _facts_table(lines: Sequence[Fact]) -> Table:
    rows = table("", "")
    rows.show_header = False
    rows.columns[0].no_wrap = True
    for line in lines:
        source = f"  ({line.source})" if line.source else ""
        rows.add_row(Text(line.name, NAME), Text.assemble(line.value, (source, FAINT)))
    return rows


def _tell_images(screen: Console, photos: FoundImages, folder: Path | None) -> None:
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


def _ask(
    screen: Console,
    settings: HandlerSettings,
    facts: ModelFacts,
    photos: FoundImages,
    labels_path: str | None,
) -> bool:
    """Show the answers of both; whether they are the same."""
    labels = Labels.load(labels_path, facts.num_classes)
    started_s = time.monotonic()
    with screen.status("loading the model ..."):
        handler = create_handler(_HANDLER, settings)
    try:
        info = handler.info()
        took_s = time.monotonic() - started_s
        screen.print(f"{info.engine} in {info.precision}, loaded in {took_s:.1f} s.", style=FAINT)
        answers = [*compared(handler, facts, evenly(photos.usable, _SHOWN_PHOTOS))]
    finally:
        handler.close()
    screen.print(_answers_table(answers, labels))
    return _tell_verdict(screen, answers, info, facts)


def _answers_table(answers: Sequence[Answer], labels: Labels) -> Table:
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
    return rows


def _tell_verdict(
    screen: Console, answers: Sequence[Answer], info: HandlerInfo, facts: ModelFacts
) -> bool:
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


def _compare(screen: Console, options: Namespace, model: str, photos: FoundImages) -> int:
    with TemporaryDirectory(prefix="thriftpipe-try-") as folder:
        # The load test takes a folder, all of whose images can be used.
        for path in evenly(photos.usable, _COMPARED_PHOTOS):
            Path(folder, path.name).symlink_to(path.resolve())
        words = comparison_words(options, model, Path(folder), free_ports(len(VARIANTS)))
        code = compare(words, options.typed)
    if code:
        return _DIFFERENT if code == _WRONG else code
    measured = Path(options.output_dir)
    summary = read_summary(measured)
    screen.print()
    screen.print(_rows_table(summary["variants"]))
    if summary["verdict"] is not None:
        first, *others = summary["verdict"]["sentences"].values()
        screen.print()
        screen.print(first.replace("`", ""), style="bold")
        for sentence in others:
            screen.print(sentence.replace("`", ""))
    report = (measured / "report.html").absolute().as_uri()
    screen.print(Text.assemble("Report: ", (report, NAME)), soft_wrap=True)
    return 0


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


def _tell_next(
    screen: Console, options: Namespace, model: str, images: Path | None, photos: FoundImages
) -> None:
    heading(screen, "Next")
    skip_bad = bool(photos.bad)
    for purpose, command in (
        ("the full comparison", full_command(options, model, images, skip_bad=skip_bad)),
        ("serve it", serve_command(options, model)),
    ):
        screen.print(f"# {purpose}", style=FAINT)
        # One line, to be copied.
        screen.print(Text(command, NAME), soft_wrap=True)
