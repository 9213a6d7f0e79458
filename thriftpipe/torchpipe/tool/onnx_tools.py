"""torchpipe v0's `torchpipe.tool.onnx_tools`, as far as its programs use it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from thriftpipe.torchpipe.utils.models import onnx_export


def torch2onnx(
    torch_model: torch.nn.Module,
    onnx_save_path: str | os.PathLike[str],
    input_shape: Sequence[int] = (3, 224, 224),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> None:
    """Export a model of one image input with a dynamic batch.

    Args:
        torch_model: the network.
        onnx_save_path: the file.
        input_shape: of one image: channels, height, width.
        mean: what is taken from each channel first, in units of 0 to 255; None for nothing.
        std: what is divided by then.

    Raises:
        ValueError: there is only one of mean and std.
    """
    if (mean is None) != (std is None):
        raise ValueError("mean and std belong together: give both, or neither")
    network: torch.nn.Module = torch_model.cpu()
    if mean is not None and std is not None:
        network = torch.nn.Sequential(_Normalization(mean, std), network)
    onnx_export(network, onnx_save_path, (1, *input_shape))


class _Normalization(torch.nn.Module):
    """(pixels - mean) / std, for each channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std
