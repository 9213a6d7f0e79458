"""A pipeline's results in words: classes and scores, or what kind of thing they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.classifier import probabilities
from engine.interface import Engine
from pipeline.backends.inference import ENGINE, ENGINE_BACKEND
from pipeline.backends.postprocessing import Postprocessor
from pipeline.commands.members import members
from pipeline.pipe import Pipe
from service.labels import Labels, top_classes


@dataclass(frozen=True)
class Classifier:
    """How the results of a node with a model are read.

    Attributes:
        labels: its classes' names.
        gives_probabilities: whether its scores are probabilities, or logits.
        name: the model's.
        engine: what runs it, in words.
    """

    labels: Labels
    gives_probabilities: bool
    name: str
    engine: str


def classifiers(loaded: Pipe, labels_path: str | None) -> dict[str, Classifier]:
    """Those of all nodes whose model gives one row of scores.

    Args:
        loaded: the pipeline.
        labels_path: a file of labels for all of them, or None for each model's default.

    Raises:
        ConfigurationError: the labels cannot be read, or are not as many as a model's classes.
    """
    found = {}
    for name, node in loaded.local_nodes.items():
        for member in members(loaded.config.nodes[name]):
            if member.name != ENGINE_BACKEND:
                continue
            engine: Engine = node.shared.get(ENGINE)
            outputs = engine.model.outputs
            if len(outputs) == 1 and len(outputs[0].shape) == 2:
                postprocessor: Postprocessor = member.settings["postprocessor"]
                found[name] = Classifier(
                    Labels.load(labels_path, engine.model.num_classes),
                    engine.model.outputs_probabilities or postprocessor.softmax,
                    engine.model.name,
                    f"{engine.name} {engine.options.precision}",
                )
    return found


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
        if isinstance(result, torch.Tensor) and tuple(result.shape) == (1, len(names)):
            given = classifier.gives_probabilities
            row = probabilities(result, are_probabilities=given)[0]
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


def result_lines(described_result: dict[str, Any]) -> list[str]:
    """The same in lines for a terminal; the first one says the most."""
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
