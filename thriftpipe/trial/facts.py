"""What is found in a model's file, and where each of it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.classifier import (
    classifier_input,
    classifier_normalization,
    classifier_output,
    input_size,
)
from engine.normalization import Normalization
from engine.onnx_graph.activations import AUTO, NONE
from engine.onnx_graph.final_activation import activation_in_graph
from engine.onnx_graph.model import OnnxModel
from engine.resizing import Resizing
from engine.scoring import Scoring, scoring_of
from engine.zoo import open_model
from interfaces.sizes import size_text
from service.handlers.handler_settings import HandlerSettings

_GRANTED = "taken for granted"
_CLASSES_OF_IMAGENET = 1000


@dataclass(frozen=True)
class Fact:
    """One line: what it is about, what was found, and what says so."""

    name: str
    value: str
    source: str


@dataclass(frozen=True)
class ModelFacts:
    """What has to be known to serve a model.

    Attributes:
        path: its file.
        resizing: how images come to its size.
        layout: "nchw" or "nhwc".
        color: "rgb", "bgr" or "grey".
        normalization: of its pixels; None where it takes them as they are.
        output: name of the one that is served.
        activation: "softmax", "sigmoid" or "none": what is to be put behind that output.
        num_classes: scores of an image.
        note: what users of its answers have to know, or "".
        lines: all of it for people.
    """

    path: Path
    resizing: Resizing
    layout: str
    color: str
    normalization: Normalization | None
    output: str
    activation: str
    num_classes: int
    note: str
    lines: Sequence[Fact]


def facts_of(settings: HandlerSettings, labels_path: str | None) -> ModelFacts:
    """Look at the model that the settings name.

    Args:
        settings: what the command line says.
        labels_path: file of the classes' names, or None for those that the service knows.

    Raises:
        EngineError: there is no such model, or it cannot be served.
    """
    size = settings.input_size or settings.crop
    model = open_model(settings.model, settings.weights, size, settings.layout)
    served = classifier_input(
        classifier_output(model, settings.output),
        *(settings.layout, settings.color, settings.input_size, settings.crop),
    )
    image = served.image_format
    assert image is not None  # noqa: S101 (classifier_input has found it)
    resizing = Resizing.of(input_size(served), settings.resize, settings.crop)
    normalization = classifier_normalization(served, settings.mean, settings.std)
    scoring = scoring_of(served, settings.output_activation or AUTO)
    return ModelFacts(
        path=model.path,
        resizing=resizing,
        layout=image.layout,
        color=image.color,
        normalization=normalization,
        output=served.outputs[0].name,
        activation=scoring.activation,
        num_classes=scoring.num_classes,
        note=model.note,
        lines=[
            Fact("model", f"{model.name}, {size_text(model.path.stat().st_size)}", ""),
            Fact("input", str(model.inputs[0]), "the file"),
            Fact("layout", image.layout.upper(), image.layout_from),
            Fact("channels", image.channels_in_words, image.color_from or _GRANTED),
            *_size_of_images(model, resizing, settings),
            *_normalization(normalization, served, settings),
            *_outputs(model, served, settings),
            *_activation(scoring, served, settings),
            Fact("classes", str(scoring.num_classes), "the output's shape"),
            _labels(labels_path, scoring.num_classes),
        ],
    )


def _size_of_images(
    model: OnnxModel, resizing: Resizing, settings: HandlerSettings
) -> Iterator[Fact]:
    size = f"{resizing.height}x{resizing.width}"
    if not model.inputs[0].is_open:
        source = "the file"
    elif settings.input_size or settings.crop:
        source = "--input-size" if settings.input_size else "--crop"
    else:
        source = f"{_GRANTED}: the file leaves it open"
    yield Fact("size", size, source)
    source = "the default" if resizing.shorter_side is None else "--resize"
    yield Fact("resize", str(resizing), source)


def _normalization(
    normalization: Normalization | None, model: OnnxModel, settings: HandlerSettings
) -> Iterator[Fact]:
    if normalization is None:
        yield Fact("normalisation", "none: it takes pixels of 0 to 255 as bytes", "the file")
        return
    channels = 1 if model.takes_grey else 3
    mean, std = (
        ", ".join(f"{value:g}" for value in it[:channels]) for it in normalization.per_channel()
    )
    if settings.mean is not None:
        source = "--mean and --std"
    elif model.declared_normalization is not None:
        source = "the file's metadata"
    elif model.takes_grey:
        source = f"{_GRANTED}, pixels of 0 to 1: the file does not say"
    else:
        source = f"{_GRANTED}, ImageNet's: the file does not say"
    yield Fact("normalisation", f"(pixel - mean) / std, mean {mean}, std {std}", source)


def _outputs(model: OnnxModel, served: OnnxModel, settings: HandlerSettings) -> Iterator[Fact]:
    if len(model.outputs) == 1:
        yield Fact("output", str(model.outputs[0]), "the file")
        return
    yield Fact("outputs", ", ".join(map(str, model.outputs)), "the file")
    source = "--output" if settings.output else "the only one of shape N x classes"
    yield Fact("served", str(served.outputs[0]), source)


def _activation(scoring: Scoring, model: OnnxModel, settings: HandlerSettings) -> Iterator[Fact]:
    name = scoring.activation
    if settings.output_activation not in (None, AUTO):
        what = "the values are served as they are" if name == NONE else f"a {name} is put behind it"
        yield Fact("scores", what, "--output-activation")
    elif name == NONE:
        found, output = model.final_activation, model.outputs[0]
        in_graph, _ = activation_in_graph(model.proto, output.name, len(output.shape))
        source = "its graph" if in_graph else "its values are never negative and add up to 1"
        yield Fact("scores", f"the file ends in a {found}: nothing is added", source)
    else:
        yield Fact("scores", f"a {name} is put behind the output", "the file ends in raw values")


def _labels(path: str | None, num_classes: int) -> Fact:
    if path is not None:
        return Fact("labels", path, "--labels")
    if num_classes == _CLASSES_OF_IMAGENET:
        return Fact("labels", "ImageNet's", f"{_GRANTED}: {num_classes} classes")
    return Fact("labels", f"class_0 to class_{num_classes - 1}", "--labels names them")
