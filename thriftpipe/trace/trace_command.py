"""What the command `trace` does."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

from engine.errors import EngineError
from pipeline.benchmark.load import Load
from pipeline.commands.console import complain, say
from pipeline.commands.loading import CANNOT_BEGIN, loaded_pipe, named_images
from pipeline.errors import PipelineConfigError
from pipeline.image_files import Image, read_images
from service.errors import ConfigurationError
from thriftpipe.trace.findings import verdict
from thriftpipe.trace.options import EVENTS, PAGE
from thriftpipe.trace.page import page
from thriftpipe.trace.recorder import Recorder
from thriftpipe.trace.recording import Recording
from thriftpipe.trace.sides import (
    baseline_settings,
    baseline_side,
    engine_facts,
    pipeline_side,
    run_pipeline,
)
from thriftpipe.trace.trace_events import trace_events

_FORMATS: Mapping[str, Callable[[Recording], str]] = {PAGE: page, EVENTS: trace_events}


def run_trace(options: Namespace) -> int:
    """Record, and write the files; 1 if an image failed, 2 if it cannot begin."""
    try:
        files = named_images(options, options.photos)
        images = read_images(files)
        recording = _record(options, images)
        for path in options.output:
            text = _FORMATS[path.suffix.lower()](recording)
            # Names of files may be any bytes.
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except (*CANNOT_BEGIN, OSError) as error:
        complain(f"error: {error}")
        return 2
    say(" ".join(verdict(recording)))
    for path in options.output:
        say(f"{path}: {_what_it_is(path)}")
    failures = [it.failure for side in recording.sides for it in side.requests if it.failure]
    if failures:
        complain(f"{len(failures)} requests failed, such as: {failures[0]}")
    return 1 if failures else 0


def _what_it_is(path: Path) -> str:
    if path.suffix.lower() == EVENTS:
        return "open it in https://ui.perfetto.dev (it stays in your browser) or about:tracing"
    return "open it in a browser"


def _record(options: Namespace, images: list[Image]) -> Recording:
    recorder = Recorder()
    load = Load(options.clients, images=options.images, in_order=True)
    note, settings = "it was left out (--no-baseline)", None
    with loaded_pipe(options, parts=recorder) as loaded:
        complain(f"pipeline: {options.images} images, {options.clients} clients ...")
        run_pipeline(loaded, recorder, images, load, options.node)
        facts = engine_facts(loaded)
        largest = {name: node.batch_range[1] for name, node in loaded.local_nodes.items()}
        if not options.no_baseline:
            try:
                settings = baseline_settings(loaded)
            except PipelineConfigError as error:
                note = str(error)
    sides = [pipeline_side(loaded, recorder, facts, load.clients)]
    if settings is not None:
        complain(f"baseline: {options.images} images, {options.clients} clients ...")
        try:
            sides.insert(0, baseline_side(settings, images, load))
            note = ""
        except (EngineError, ConfigurationError) as error:
            note = str(error)
    if note:
        complain(f"no baseline above: {note}")
    return Recording(Path(options.file).name, _command_line(options), sides, largest, note)


def _command_line(options: Namespace) -> str:
    words = ["thriftpipe", "trace", options.file, *options.photos]
    words += ["--clients", str(options.clients), "--images", str(options.images)]
    for key, value in options.set:
        words += ["--set", f"{key}={value}"]
    if options.engine != "auto":
        words += ["--engine", options.engine]
    return shlex.join(words)
