"""`thriftpipe try`."""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text

from engine.contexts.cuda_device import cuda_available
from engine.errors import EngineError
from engine.zoo import DEFAULT_MODEL
from interfaces.image_folder import FoundImages, evenly
from loadtest.errors import LoadTestError
from loadtest.load.images import DEFAULT_FOLDER, default_images
from loadtest.servers.ports import free_ports
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.handlers.table import create_handler
from service.images.decode_memory import limit_decode_memory
from service.images.limit import prepare_opencv
from service.labels import Labels
from service.options.server_settings import ServerSettings
from service.options.validation import handler_settings
from thriftpipe.screen import FAINT, console, heading
from thriftpipe.trial.answers import compared
from thriftpipe.trial.comparison import (
    VARIANTS,
    compare,
    comparison_words,
    read_summary,
)
from thriftpipe.trial.facts import ModelFacts, facts_of
from thriftpipe.trial.photos import look_through
from thriftpipe.trial.sections import (
    tell_answers,
    tell_comparison,
    tell_facts,
    tell_images,
    tell_next,
    tell_verdict,
)

_HANDLER = "pipeline"
_SHOWN_PHOTOS = 5
# More than short windows send.
_COMPARED_PHOTOS = 200
_WRONG, _DIFFERENT = 2, 1


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
    if cuda_available():
        # A GPU's decoder gives other pixels than those that onnxruntime is asked with.
        options.decode = "cpu"
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
    tell_facts(screen, facts.lines)
    heading(screen, "Images")
    tell_images(screen, photos, images)
    heading(screen, "Answers, beside plain onnxruntime on the same pixels")
    is_same = _ask(screen, settings, facts, photos, options.labels)
    model = options.model or DEFAULT_MODEL
    code = 0 if is_same else _DIFFERENT
    if not is_same or options.skip_compare:
        tell_next(screen, options, model, images, photos)
        return code
    heading(screen, "Both handlers under load, for about a minute")
    code = _compare(screen, options, model, photos)
    tell_next(screen, options, model, images, photos)
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
    tell_answers(screen, answers, labels)
    return tell_verdict(screen, answers, info, facts)


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
    tell_comparison(screen, read_summary(measured), measured / "report.html")
    return 0
