"""Models whose pixels are uint8, and their scores by an engine."""

from __future__ import annotations

import torch

from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine


def fused(model: OnnxModel) -> OnnxModel:
    assert model.declared_normalization is not None
    return model.with_uint8_input(model.declared_normalization)


def scores(
    name: str, precision: str, model: OnnxModel, batch: torch.Tensor, options: EngineOptions
) -> torch.Tensor:
    engine = load_engine(choose_engine(name, precision), model, options)
    context = engine.create_context()
    rows = [context.run([(batch[row : row + 1],)])[0].clone() for row in range(len(batch))]
    return torch.cat(rows)
