"""The backend that runs the model: `TensorrtTensor`, whichever engine stands behind it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from engine.cpu import threads_per_context
from engine.interface import Engine, EngineError, EngineOptions, check_item
from engine.onnx_model import Normalization, OnnxModel
from engine.registry import (
    EngineChoice,
    choose_engine,
    fitting_instances,
    load_engine,
    stand_in_precision,
)
from engine.zoo import open_model
from pipeline.backend import PROFILE_KEY, Backend, InstanceConfig, Item, fail
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_DATA_KEY, TASK_RESULT_KEY
from pipeline.registry import register
from pipeline.settings import (
    BatchShape,
    Setting,
    choice,
    read_batch_shape,
    read_floats,
    read_text,
)

logger = logging.getLogger(__name__)

ENGINE = "engine"


@register("TensorrtTensor")
class TensorrtTensor(Backend):
    """Batches of tensors through the model; one execution context an instance, no lock.

    Takes items whose data is a tensor of one row: (1, 3, height, width) or (3, height, width).
    Gives each a tensor of one row, or a list of them if the model has several outputs. `mean` and
    `std` are fused into the model's graph, which then takes uint8.
    """

    settings: ClassVar[tuple[Setting, ...]] = (
        Setting("model", read_text, "an ONNX file or the name of a packaged model"),
        Setting("model::cache", read_text, "a file name"),
        Setting("min", read_batch_shape, 'rows, or a shape such as "1x3x224x224"', BatchShape(1)),
        Setting("max", read_batch_shape, 'rows, or a shape such as "4x3x224x224"', BatchShape(1)),
        Setting("mean", read_floats, 'a number a channel, such as "123.675, 116.28, 103.53"'),
        Setting("std", read_floats, 'a number a channel, such as "58.395, 57.12, 57.375"'),
        Setting(
            "precision", choice("fp32", "fp16", "bf16", "int8"), '"fp32", "fp16", "bf16" or "int8"'
        ),
    )

    @property
    def min(self) -> int:
        """Rows of the smallest batch."""
        return self._min_rows

    @property
    def max(self) -> int:
        """Rows of the largest batch."""
        return self._max_rows

    @classmethod
    def fitting_instance_num(
        cls, instance_num: int, settings: Mapping[str, Any], engine: str
    ) -> int:
        """As many as keep the engine busy: more would take turns and slow each other down."""
        return fitting_instances(_choose(settings, engine), instance_num)

    @classmethod
    def runs_on_gpu(cls, settings: Mapping[str, Any], engine: str) -> bool:
        """As the engine does."""
        return _choose(settings, engine).device == "cuda"

    def init(self, config: InstanceConfig) -> None:
        """Load the model with the node's first instance, and create this instance's context."""
        smallest: BatchShape = config.settings["min"]
        largest: BatchShape = config.settings["max"]
        if smallest.rows > largest.rows:
            raise PipelineConfigError(f"min = {smallest} is more than max = {largest}")
        self._min_rows, self._max_rows = smallest.rows, largest.rows
        engine: Engine = config.shared.get_or_create(ENGINE, lambda: _load(config))
        for name, shape in (("min", smallest), ("max", largest)):
            _check_shape(name, shape, engine)
        self._spec = engine.inputs[0]
        self._context = engine.create_context()
        self._context.profile = config.profile_stages

    def forward(self, items: Sequence[Item]) -> None:
        """Run one batch; an item of the wrong shape fails by itself."""
        batch, rows = [], []
        for item in items:
            try:
                row = _one_row(item[TASK_DATA_KEY])
                check_item(row, self._spec)
            except EngineError as error:
                fail(item, error)
            else:
                batch.append(item)
                rows.append((row,))
        if not batch:
            return
        # Copies, because the outputs may be buffers of the context.
        outputs = [torch.split(output.clone(), 1) for output in self._context.run(rows)]
        for item, *results in zip(batch, *outputs, strict=True):
            item[TASK_RESULT_KEY] = results[0] if len(results) == 1 else results
            if self._context.profile:
                item.setdefault(PROFILE_KEY, {}).update(
                    {f"{type(self).__name__}.{k}": v for k, v in self._context.times_ms.items()}
                )

    def close(self) -> None:
        """Free this instance's context."""
        self._context.close()


def _one_row(data: Any) -> torch.Tensor:
    if not isinstance(data, torch.Tensor):
        raise EngineError(f"expected a tensor, such as Mat2Tensor gives, got {type(data).__name__}")
    row = data.unsqueeze(0) if data.dim() == 3 else data
    if row.shape[0] != 1:
        raise EngineError(f"expected one row an item, got {row.shape[0]}")
    return row


def _choose(settings: Mapping[str, Any], engine: str) -> EngineChoice:
    return choose_engine(engine, "bf16" if settings["precision"] == "bf16" else None)


def _load(config: InstanceConfig) -> Engine:
    settings = config.settings
    if settings["model"] is None:
        raise PipelineConfigError("TensorrtTensor needs model, an ONNX file")
    wanted = settings["precision"]
    choice = _choose(settings, config.engine)
    precision = stand_in_precision(choice.name, wanted or choice.precision)
    if choice.name != "tensorrt":
        logger.info("%s: engine %s stands in for TensorRT", config.node, choice.name)
    if wanted not in (None, precision):
        logger.info("%s: %s runs %s instead of %s", config.node, choice.name, precision, wanted)
    cache = settings["model::cache"]
    options = EngineOptions(
        precision=precision,
        max_batch_size=settings["max"].rows,
        num_contexts=config.instance_num,
        threads_per_context=threads_per_context(config.instance_num),
        device_id=config.device_id,
        cache_path=Path(cache) if cache else None,
    )
    return load_engine(choice, _normalised(open_model(settings["model"]), settings), options)


def _normalised(model: OnnxModel, settings: Any) -> OnnxModel:
    mean, std = settings["mean"], settings["std"]
    if (mean is None) != (std is None):
        missing = "mean" if mean is None else "std"
        raise PipelineConfigError(f"mean and std go together; {missing} is missing")
    return model if mean is None else model.with_uint8_input(Normalization(mean, std))


def _check_shape(name: str, shape: BatchShape, engine: Engine) -> None:
    if len(engine.inputs) != 1:
        raise PipelineConfigError(f"the model has {len(engine.inputs)} inputs, this node feeds 1")
    if shape.item_shape is None:
        return
    wanted = engine.inputs[0].item_shape
    fits = len(wanted) == len(shape.item_shape) and all(
        w is None or w == given for w, given in zip(wanted, shape.item_shape, strict=True)
    )
    if not fits:
        text = "x".join("?" if size is None else str(size) for size in wanted)
        raise PipelineConfigError(f"{name} = {shape}, but one row of the model's input is {text}")
