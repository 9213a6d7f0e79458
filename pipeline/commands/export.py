"""`python -m pipeline export`."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.cache.atomic_file import write_atomically
from engine.cache.bounded_file import why_no_folder
from engine.classifier import classifier_output
from engine.errors import EngineError
from engine.normalization import Normalization
from engine.onnx_graph.model import OnnxModel
from engine.tensor_spec import TensorSpec
from engine.zoo import ZOO_NAMES
from engine.zoo.agreement import BATCHES
from engine.zoo.export import OPSET, export_network
from engine.zoo.factory import network_of
from engine.zoo.weights import fill, read_state_dict
from interfaces.sizes import size_text
from pipeline.commands.console import complain, say
from service.errors import ConfigurationError
from service.labels import read_labels

_MOST_WARNINGS = 5


def export(options: Namespace) -> int:
    """Export; 1 if the network cannot be exported, 2 if it cannot be had."""
    output = Path(options.output)
    try:
        _check_output(output)
        normalization = _normalization(options)
        labels = None if options.labels is None else len(read_labels(Path(options.labels)))
        inputs = _named(options.input)
        inputs = _named(options.input)
        if options.network in ZOO_NAMES:
            raise EngineError(
                f"{options.network} is a packaged model: python -m engine.zoo export "
                f"{options.network} --output {output}"
            )
        network = network_of(options.network)
        if options.weights is not None:
            path = Path(options.weights)
            fill(network, read_state_dict(path), path)
    except (EngineError, ConfigurationError) as error:
        complain(f"error: {error}")
        return 2
    try:
        exported = export_network(network, inputs, normalization, warn=_warn_of_fixed)
        lines = _facts(exported.content, output, labels)
        write_atomically(output, exported.content, mode=0o644)
    except EngineError as error:
        complain(f"error: {options.network} is not exported: {error}")
        return 1
    except OSError as error:
        complain(f"error: cannot write {output}: {error.strerror or error}")
        return 1
    say(f"{output}: {size_text(len(exported.content))}, opset {OPSET}, any batch size")
    say("\n".join(lines))
    batches = " and ".join(map(str, BATCHES))
    say(
        f"agrees with torch on batches of {batches} made-up rows: at most "
        f"{exported.difference:.1g} of a row's largest value apart"
    )
    return 0


def _warn_of_fixed(places: Sequence[str]) -> None:
    for place in places[:_MOST_WARNINGS]:
        complain(f"warning: fixed while it was traced: {place}")
    if (more := len(places) - _MOST_WARNINGS) > 0:
        complain(f"warning: and {more} more of these")


def _check_output(output: Path) -> None:
    if output.suffix != ".onnx":
        raise EngineError(f"the file to write is named *.onnx, got {output}")
    if reason := why_no_folder(output.parent):
        raise EngineError(f"cannot write {output}: {reason}")


def _named(inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The inputs, each with a name: "input", or "input_0" and so on, where none is given."""
    lone = len(inputs) == 1
    named = [
        replace(spec, name=spec.name or ("input" if lone else f"input_{index}"))
        for index, spec in enumerate(inputs)
    ]
    if len({spec.name for spec in named}) < len(named):
        raise EngineError(f"inputs need names that differ: {', '.join(map(str, named))}")
    return named


def _normalization(options: Namespace) -> Normalization | None:
    if (options.mean is None) != (options.std is None):
        missing = "--mean" if options.mean is None else "--std"
        raise EngineError(f"--mean and --std go together; {missing} is missing")
    return None if options.mean is None else Normalization(options.mean, options.std)


def _facts(content: bytes, output: Path, labels: int | None) -> list[str]:
    """What the model is, in lines, as engines and the service will see it.

    Raises:
        EngineError: it cannot be served in batches, or has not as many classes as labels.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, output.name)
        path.write_bytes(content)
        try:
            model = OnnxModel.load(path)
            classes, activation = _classes(model, labels)
        except EngineError as error:
            raise EngineError(str(error).replace(str(path), output.name)) from error
    lines = [f"takes {spec}" for spec in model.inputs]
    lines += [f"gives {spec}" for spec in model.outputs]
    lines += [f"warning: {flaw}" for flaw in model.trial.flaws.values()]
    if classes is not None:
        what = f"behind a {activation}" if activation else "without a softmax; it gets one"
        known = "as many as labels" if labels else "--labels checks a file of their names"
        lines.append(f"scores {classes} classes {what}; {known}")
    return lines


def _classes(model: OnnxModel, labels: int | None) -> tuple[int | None, str]:
    """How many classes the model scores, if it is a classifier, and behind which activation."""
    try:
        scored = classifier_output(model, None)
    except EngineError:
        if labels is None:
            return None, ""
        raise
    if labels not in (None, scored.num_scores):
        raise EngineError(
            f"the file of labels has {labels}, the network scores {scored.num_scores} classes"
        )
    return scored.num_scores, scored.final_activation
