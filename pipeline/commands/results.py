"""A pipeline's results in words: classes and scores, or what kind of thing they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.interface import Engine
from engine.onnx_graph.activations import AUTO
from engine.onnx_graph.model import OnnxModel
from engine.scoring import Scoring
from pipeline.backends.inference import ENGINE, ENGINE_BACKEND
from pipeline.backends.postprocessing import scoring_of_results
from pipeline.callable_pipe import Pipe
from service.labels import Labels, top_classes


@dataclass(frozen=True)
class Classifier:
    """How the results of a node with a model are read.

    Attributes:
        labels: its classes' names.
        scoring: how its results become scores.
    """

    labels: Labels
    scoring: Scoring


def classifiers(loaded: Pipe, labels_path: str | None) -> dict[str, Classifier]:
    """Those of all nodes whose model gives one row of scores.

    Args:
        loaded: the pipeline.
        labels_path: a file of labels for all of them, or None for each model's default.

    Raises:
        ConfigurationError: the labels cannot be read, or are not as many as a model's classes.
        EngineError: an `output_activation` does not suit its model.
    """
    found = {}
    for name, node in loaded.local_nodes.items():
        for backend in loaded.config.nodes[name].backends():
            if backend.name != ENGINE_BACKEND:
                continue
            engine: Engine = node.shared.get(ENGINE)
            if _scores_classes(engine.model, backend.settings):
                scoring = scoring_of_results(engine.model, backend.settings)
                labels = Labels.load(labels_path, scoring.num_classes)
                found[name] = Classifier(labels, scoring)
    return found


def _scores_classes(model: OnnxModel, settings: Mapping[str, Any]) -> bool:
    """Whether a result is one row of scores; a single value is one only where a setting says so."""
    if len(model.outputs) != 1 or (size := model.outputs[0].row_size) is None:
        return False
    is_declared = settings["output_activation"] != AUTO or model.final_activation == "Sigmoid"
    return size > 1 or is_declared


def described(result: Any, classifier: Classifier | None, top: int) -> dict[str, Any]:
    """A result as JSON has it.

    Args:
        result: what a node gave.
        classifier: how to read it, or None if it is no classifier's.
        top: how many classes.

    Returns:
        `label`, `score` and `top`, a list of classes with `class_id`, `label` and `score`; or
        `type`, with `shape` and `dtype` where it has them, `value` of a number or text, and
        `elements` of a list.
    """
    if classifier is not None:
        names = classifier.labels.names
        if isinstance(result, torch.Tensor) and _is_row(result, len(names)):
            row = classifier.scoring.scores(result)[0]
            if not np.isfinite(row).all():
                return {"type": "scores that are not finite numbers"}
            ids = top_classes(row, min(top, len(names)))
            return _classes([(class_id, float(row[class_id])) for class_id in ids], names)
        if isinstance(result, tuple) and len(result) == 2 and result[0] in range(len(names)):
            return _classes([(int(result[0]), float(result[1]))], names)
    kind: dict[str, Any] = {"type": type(result).__name__}
    if isinstance(result, torch.Tensor | np.ndarray):
        kind |= {"shape": list(result.shape), "dtype": str(result.dtype).removeprefix("torch.")}
    elif isinstance(result, str | int | float):
        kind["value"] = result
    elif isinstance(result, list | tuple):
        kind["elements"] = [described(element, classifier, top) for element in result]
    return kind


def _is_row(result: torch.Tensor, classes: int) -> bool:
    """Whether it is one image's scores; a single value stands for those of two classes."""
    values = result.numel()
    return len(result) == 1 and (values == classes or (values, classes) == (1, 2))


def result_lines(described_result: dict[str, Any]) -> list[str]:
    """A described result in lines for a terminal, the most important first."""
    if "top" in described_result:
        best = f"{described_result['label']} {described_result['score']:.4f}"
        others = [
            f"{rank}. {entry['score']:.4f}  {entry['label']}"
            for rank, entry in enumerate(described_result["top"], start=1)
        ]
        return [best, *(others if len(others) > 1 else [])]
    if "elements" in described_result:
        elements = described_result["elements"]
        lines = [f"{described_result['type']} of {len(elements)}"]
        for number, element in enumerate(elements):
            first, *more = result_lines(element)
            lines += [f"[{number}] {first}", *(f"    {line}" for line in more)]
        return lines
    words = [described_result["type"]]
    if "shape" in described_result:
        words += [described_result["dtype"], f"({', '.join(map(str, described_result['shape']))})"]
    if "value" in described_result:
        words.append(repr(described_result["value"]))
    return [" ".join(words)]


def _classes(scores: list[tuple[int, float]], names: list[str]) -> dict[str, Any]:
    top = [
        {"class_id": class_id, "label": names[class_id], "score": score}
        for class_id, score in scores
    ]
    return {"label": top[0]["label"], "score": top[0]["score"], "top": top}
