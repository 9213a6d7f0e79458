"""Models by name: exported on first use, and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import torch
from torch import nn

from engine.cache.bounded_file import UnreadableFileError, open_regular, why_no_file
from engine.cache.checksummed_file import UnusableFileError, read_kept, why_not_kept, write_kept
from engine.cache.folders import cache_folder, check_private, make_private_folder, spare_folder
from engine.errors import EngineError, MissingOnHostError
from engine.normalization import IMAGENET_NORMALIZATION, Normalization
from engine.onnx_graph.file import MAX_MODEL_BYTES
from engine.onnx_graph.model import OnnxModel
from engine.zoo import efficientnet_lite, resnet
from engine.zoo.export import EXPORTER_VERSION, OPSET, export_classifier, outline_of_classifier
from engine.zoo.weights import MAX_WEIGHTS_BYTES, fill, read_state_dict
from interfaces.error_text import in_one_line
from interfaces.names import unknown_name

DEFAULT_MODEL = "efficientnet_lite0"
SEEDED_NOTE = "labels mean nothing: seeded weights"
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


def open_model(
    name_or_path: str | None = None,
    weights: str | None = None,
    open_size: tuple[int, int] | None = None,
    layout: str | None = None,
) -> OnnxModel:
    """A model from the zoo, or from a file.

    Args:
        name_or_path: a name of the zoo, a path to an ONNX file, or None for DEFAULT_MODEL. A file
            whose name is also one of the zoo's goes by "./name".
        weights: state-dict file for a model of the zoo, or None for the model's own weights.
        open_size: height and width, in pixels, with which a file is tried out that leaves them
            open.
        layout: where a file has its channels, one of `inputs.LAYOUTS`, if its user says so.

    Raises:
        EngineError: there is no such model or file, or the weights do not fit.
        MissingOnHostError: the package with a model of the zoo is not installed.
    """
    name = name_or_path or DEFAULT_MODEL
    if name in ZOO:
        try:
            return OnnxModel.load(exported_file(name, weights), is_ours=True)
        except MissingOnHostError as error:
            if name_or_path is not None:
                raise
            raise MissingOnHostError(
                f"{error}. It is what is served where no model is named: --model takes an ONNX "
                f"file of yours, or resnet50, whose speed is that of any ResNet-50 and whose "
                f"{SEEDED_NOTE}"
            ) from error
    if weights is not None:
        raise EngineError(
            f"weights go into a model of the zoo ({', '.join(ZOO)}); {name!r} is a file and has "
            f"its own"
        )
    if not os.path.lexists(name) and not Path(name).suffix and os.sep not in name:
        raise EngineError(f"{unknown_name('model', name, ZOO)}, or a path to an ONNX file")
    return OnnxModel.load(name, open_size=open_size, layout=layout)


def outline(name: str) -> OnnxModel:
    """A model of the zoo as far as its inputs and outputs tell, without weights and at once.

    Args:
        name: one of ZOO.

    Raises:
        MissingOnHostError: the package with its weights is not installed.
    """
    model = ZOO[name]
    model.own_weights()
    proto = outline_of_classifier(model.normalization, *model.size)
    return OnnxModel(Path(name), "", proto)


def exported_file(name: str, weights: str | None = None) -> Path:
    """The ONNX file of a model of the zoo, exported now if it is not in the cache yet.

    Args:
        name: one of ZOO.
        weights: state-dict file, or None for the model's own weights.

    Raises:
        EngineError: the weights do not fit, a package is missing, or neither the cache folder nor
            the spare one can be written.
    """
    model = ZOO[name]
    given = None if weights is None else Path(weights)
    path = kept_file(name, given)
    try:
        read_kept(path, MAX_MODEL_BYTES)
    except FileNotFoundError:
        _logger.info("exporting %s to %s (once)", name, path)
    except UnusableFileError as reason:
        _logger.warning("exporting %s again: %s cannot be used: %s", name, path, reason)
    else:
        return path
    spare = spare_folder() / path.name
    content = _kept_in_spare(spare) or _exported(name, model, given)
    try:
        make_private_folder(path.parent)
        write_kept(path, content)
    except OSError as error:
        why = f"cannot write {path}: {error.strerror or error}"
        if why_not_kept(path, error) is None:
            raise EngineError(f"{why}; name another folder in THRIFTPIPE_CACHE_DIR") from error
        return _keep_in_spare(spare, content, why)
    return path


def kept_file(name: str, weights: Path | None = None) -> Path:
    """Where the ONNX file of a model of the zoo is kept once it is exported.

    Args:
        name: one of ZOO.
        weights: state-dict file, or None for the model's own weights.

    Raises:
        EngineError: the weights cannot be read, or the package with them is missing.
    """
    return cache_folder() / f"{name}-{_identity(ZOO[name], weights)}.onnx"


def _exported(name: str, model: ZooModel, weights: Path | None) -> bytes:
    network = model.build(weights)
    try:
        return export_classifier(network, model.normalization, *model.size, _note(model, weights))
    except Exception as error:
        # What the exporters of torch and onnxruntime raise, on a full disk too, has no common base.
        raise EngineError(f"cannot export {name}: {in_one_line(error)}") from error


def _kept_in_spare(path: Path) -> bytes | None:
    """What an earlier start has left there, or None."""
    try:
        check_private(path.parent)
        return read_kept(path, MAX_MODEL_BYTES)
    except (OSError, UnusableFileError):
        return None


def _keep_in_spare(path: Path, content: bytes, why: str) -> Path:
    """Where an exported model lies whose place in the cache folder cannot be written.

    Engines read a file, and so do the other processes of this server.
    """
    try:
        make_private_folder(path.parent)
        check_private(path.parent)
        write_kept(path, content)
    except OSError as error:
        raise EngineError(
            f"{why}, nor {path}: {error.strerror or error}; free some space, or name another "
            f"folder in THRIFTPIPE_CACHE_DIR"
        ) from error
    _logger.warning("%s; %s is used instead; THRIFTPIPE_CACHE_DIR names another folder", why, path)
    return path


def _note(model: ZooModel, weights: Path | None) -> str:
    """What users of the model's answers have to know, or ""."""
    return SEEDED_NOTE if weights is None and model.own_weights() is None else ""


def _identity(model: ZooModel, weights: Path | None) -> str:
    """A short digest of everything that the exported file depends on."""
    source = weights or model.own_weights()
    if source is None:
        origin = f"seed {resnet.SEED}"
    else:
        try:
            with open_regular(source, MAX_WEIGHTS_BYTES) as file:
                digest = hashlib.sha256()
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
            origin = digest.hexdigest()
        except UnreadableFileError as error:
            reason = why_no_file(source) or f"{source}: {error}"
            raise EngineError(f"no weights: {reason}") from error
        except OSError as error:
            raise EngineError(f"cannot read the weights {source}: {error.strerror}") from error
    facts = (
        *(origin, model.version, EXPORTER_VERSION, OPSET, model.normalization),
        *(torch.__version__, onnxruntime.__version__),
        *filter(None, [_note(model, weights)]),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
