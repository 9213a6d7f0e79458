"""Models by name: exported on first use, and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from engine.atomic_file import make_private_folder, write_atomically
from engine.bounded_file import UnreadableFileError, check_file
from engine.interface import EngineError
from engine.names import unknown_name
from engine.onnx_model import IMAGENET_NORMALIZATION, Normalization, OnnxModel
from engine.zoo import efficientnet_lite, resnet
from engine.zoo.export import EXPORTER_VERSION, OPSET, export_classifier
from engine.zoo.weights import MAX_WEIGHTS_BYTES, fill, read_state_dict

DEFAULT_MODEL = "resnet50"
_CHUNK_BYTES = 1024 * 1024

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ZooModel:
    """A model that has a name.

    Attributes:
        summary: one line for a list.
        version: raise it when the network or its made-up weights change.
        normalization: what the network expects of its pixels.
        size: height and width of its images.
        build: the network, with weights from a state-dict file or, for None, its own.
        own_weights: the file with its own weights; returns None where they are made from a seed.
    """

    summary: str
    version: int
    normalization: Normalization
    size: tuple[int, int]
    build: Callable[[Path | None], nn.Module]
    own_weights: Callable[[], Path | None]


def _build_resnet50(weights: Path | None) -> nn.Module:
    if weights is None:
        return resnet.seeded_resnet50(resnet.SEED)
    tensors = read_state_dict(weights)
    # A network that was trained further may tell other classes apart.
    last = tensors.get("fc.weight")
    network = resnet.ResNet50(1000 if last is None or last.ndim != 2 else last.shape[0])
    fill(network, tensors, weights)
    return network


def _build_efficientnet_lite0(weights: Path | None) -> nn.Module:
    network = efficientnet_lite.efficientnet_lite0()
    path = weights or efficientnet_lite.packaged_weights()
    fill(network, read_state_dict(path), path)
    return network


ZOO = {
    "resnet50": ZooModel(
        summary="ResNet-50, 224x224, seeded weights or a torchvision state dict (--weights)",
        version=1,
        normalization=IMAGENET_NORMALIZATION,
        size=(224, 224),
        build=_build_resnet50,
        own_weights=lambda: None,
    ),
    "efficientnet_lite0": ZooModel(
        summary="EfficientNet-Lite0, 224x224, ImageNet weights (extra: zoo)",
        version=1,
        normalization=efficientnet_lite.NORMALIZATION,
        size=(224, 224),
        build=_build_efficientnet_lite0,
        own_weights=efficientnet_lite.packaged_weights,
    ),
}


def open_model(name_or_path: str | None = None, weights: str | None = None) -> OnnxModel:
    """A model from the zoo, or from a file.

    Args:
        name_or_path: a name of the zoo, a path to an ONNX file, or None for ResNet-50. A file
            whose name is also one of the zoo's goes by "./name".
        weights: state-dict file for a model of the zoo, or None for the model's own weights.

    Raises:
        EngineError: there is no such model or file, or the weights do not fit.
    """
    name = name_or_path or DEFAULT_MODEL
    if name in ZOO:
        return OnnxModel.load(exported_file(name, weights))
    if weights is not None:
        raise EngineError(
            f"weights go into a model of the zoo ({', '.join(ZOO)}); {name!r} is a file and has "
            f"its own"
        )
    if not Path(name).exists() and not Path(name).suffix and os.sep not in name:
        raise EngineError(f"{unknown_name('model', name, ZOO)}, or a path to an ONNX file")
    return OnnxModel.load(name)


def exported_file(name: str, weights: str | None = None) -> Path:
    """The ONNX file of a model of the zoo, exported now if it is not in the cache yet.

    Args:
        name: one of ZOO.
        weights: state-dict file, or None for the model's own weights.

    Raises:
        EngineError: the weights do not fit, a package is missing, or the cache folder cannot be
            written.
    """
    model = ZOO[name]
    given = None if weights is None else Path(weights)
    path = cache_folder() / f"{name}-{_identity(model, given)}.onnx"
    if path.exists():
        return path
    _logger.info("exporting %s to %s (once)", name, path)
    content = export_classifier(model.build(given), model.normalization, *model.size)
    try:
        make_private_folder(path.parent)
        write_atomically(path, content)
    except OSError as error:
        raise EngineError(
            f"cannot write {path}: {error.strerror}; name another folder in THRIFTPIPE_CACHE_DIR"
        ) from error
    return path


def cache_folder() -> Path:
    """Where exported models lie: $THRIFTPIPE_CACHE_DIR, or thriftpipe in the user's cache."""
    if own := os.environ.get("THRIFTPIPE_CACHE_DIR"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared, "thriftpipe")
    return Path.home() / ".cache" / "thriftpipe"


def _identity(model: ZooModel, weights: Path | None) -> str:
    """A short digest of everything that the exported file depends on."""
    source = weights or model.own_weights()
    if source is None:
        origin = f"seed {resnet.SEED}"
    else:
        try:
            check_file(source, MAX_WEIGHTS_BYTES)
            with source.open("rb") as file:
                digest = hashlib.sha256()
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
            origin = digest.hexdigest()
        except UnreadableFileError as error:
            raise EngineError(f"no weights file {source}: {error}") from error
        except OSError as error:
            raise EngineError(f"cannot read the weights {source}: {error.strerror}") from error
    facts = (origin, model.version, EXPORTER_VERSION, OPSET, model.normalization, torch.__version__)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
