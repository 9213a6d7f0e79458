"""`python -m pipeline run`."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from engine.cache.bounded_file import UnreadableFileError, read_bounded
from pipeline.callable_pipe import Pipe
from pipeline.commands.console import complain, say
from pipeline.commands.loading import CANNOT_BEGIN, loaded_pipe, named_images
from pipeline.commands.results import Classifier, classifiers, described, result_lines
from pipeline.image_files import MOST_IMAGE_BYTES
from pipeline.keys import (
    TASK_DATA_KEY,
    TASK_ERROR_KEY,
    TASK_NODE_NAME_KEY,
    TASK_RESULT_KEY,
    TASK_RESULTS_KEY,
    TASK_STAGE_TIMES_KEY,
)


def run(options: Namespace) -> int:
    """Run all images; 1 if one failed, 2 if the pipeline cannot be loaded."""
    try:
        files = [str(file) for file in named_images(options, options.images)]
        with loaded_pipe(options, profile=options.profile) as loaded:
            return _run_images(loaded, classifiers(loaded, options.labels), files, options)
    except CANNOT_BEGIN as error:
        complain(f"error: {error}")
        return 2


def _run_images(
    loaded: Pipe, known: Mapping[str, Classifier], files: Sequence[str], options: Namespace
) -> int:
    failed = False
    for name in files:
        try:
            outcome = _outcome(loaded, known, read_bounded(Path(name), MOST_IMAGE_BYTES), options)
        except UnreadableFileError as error:
            outcome = {"error": str(error)}
        if "error" in outcome:
            failed = True
            complain(f"{name}: {outcome['error']}")
        if options.json:
            say(json.dumps({"file": name, **outcome}))
        elif "error" not in outcome:
            say("\n".join(_lines(name, outcome)))
    return 1 if failed else 0


def _outcome(
    loaded: Pipe, known: Mapping[str, Classifier], data: bytes, options: Namespace
) -> dict[str, Any]:
    """What became of one image: its result or results and its times, or its error."""
    times: list[dict[str, float]] = []
    item: dict[str, Any] = {}
    for _ in range(options.repeat):
        item = {TASK_DATA_KEY: data}
        if options.node is not None:
            item[TASK_NODE_NAME_KEY] = options.node
        loaded(item)
        if TASK_ERROR_KEY in item:
            return {"error": str(item[TASK_ERROR_KEY])}
        times.append(item[TASK_STAGE_TIMES_KEY])
    outcome: dict[str, Any] = {}
    if TASK_RESULTS_KEY in item:
        outcome["results"] = {
            node: described(result, known.get(node), options.top)
            for node, result in item[TASK_RESULTS_KEY].items()
        }
    else:
        result = item.get(TASK_RESULT_KEY)
        outcome["result"] = described(result, _only_end(loaded, known, item), options.top)
    # With filters the runs of an image need not have passed the same nodes.
    stages = dict.fromkeys(stage for run_times in times for stage in run_times)
    outcome["stage_times_ms"] = {
        stage: round(median(t[stage] for t in times if stage in t), 3) for stage in stages
    }
    return outcome


def _only_end(
    loaded: Pipe, known: Mapping[str, Classifier], item: Mapping[str, Any]
) -> Classifier | None:
    """How to read the result of a way that ends with a classifier, or with its elements."""
    graph = loaded.config.graph
    passed = {stage.partition(".")[0] for stage in item[TASK_STAGE_TIMES_KEY]}
    ends = [name for name, place in graph.places.items() if not place.next]
    # A MapReduce has no times of its own; its elements come from the end of where it jumps.
    reached = [name for name in ends if name in passed] or ends
    found = [known[name] for name in reached if name in known]
    return found[0] if len(found) == 1 else None


def _lines(name: str, outcome: Mapping[str, Any]) -> list[str]:
    if "result" in outcome:
        first, *more = result_lines(outcome["result"])
        lines = [f"{name}: {first}", *(f"  {line}" for line in more)]
    else:
        lines = [f"{name}:"]
        for node, result in outcome["results"].items():
            first, *more = result_lines(result)
            lines += [f"  {node}: {first}", *(f"    {line}" for line in more)]
    return lines + _time_lines(outcome["stage_times_ms"])


def _time_lines(times_ms: Mapping[str, float]) -> list[str]:
    """One line a node: its queue, its forward, and its backends'."""
    by_node: dict[str, list[str]] = {}
    for stage, took_ms in times_ms.items():
        node, _, part = stage.partition(".")
        by_node.setdefault(node, []).append(f"{part} {took_ms:.2f} ms")
    width = _longest(list(by_node))
    return [f"  {node.ljust(width)}  {', '.join(parts)}" for node, parts in by_node.items()]


def _longest(names: Sequence[str]) -> int:
    return max(map(len, names), default=0)
