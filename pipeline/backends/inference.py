"""The backend that runs the model: `TensorrtTensor`, whichever engine stands behind it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar

import torch

from engine.classifier import classifier_output
from engine.contexts.cuda_context import CudaContext
from engine.errors import EngineError
from engine.interface import Engine, ExecutionContext, fitting
from engine.normalization import Normalization
from engine.onnx_graph.activations import AUTO
from engine.onnx_graph.model import OnnxModel
from engine.registry import (
    EngineChoice,
    choose_engine,
    fallback_precision,
    fitting_instances,
    load_engine,
)
from engine.tensor_spec import TensorSpec
from engine.zoo import open_model
from pipeline.backends.engine_settings import ENGINE_SETTINGS, batch_shapes, engine_options
from pipeline.backends.gpu_image import GraphRow, as_gpu_tensor
from pipeline.backends.interface import (
    ENGINE_INPUT_OFFER,
    PROFILE_KEY,
    Backend,
    InstanceConfig,
    Item,
    fail,
)
from pipeline.backends.postprocessing import Postprocessor, check_activation
from pipeline.backends.registry import register
from pipeline.errors import PipelineConfigError
from pipeline.keys import TASK_DATA_KEY, TASK_REQUEST_SIZE_KEY, TASK_RESULT_KEY
from pipeline.language.settings import BatchShape, Setting

logger = logging.getLogger(__name__)

ENGINE = "engine"
ENGINE_BACKEND = "TensorrtTensor"
"""The name by which configurations call the backend that runs the model."""


@register(ENGINE_BACKEND)
class TensorrtTensor(Backend):
    """Batches of tensors through the model; one execution context an instance, no lock.

    Takes items whose data is a tensor of one row, (1, 3, height, width) or (3, height, width), or
    of as many rows as the item's `request_size` says; or a list of tensors, one an input of the
    model. Gives each a tensor of its rows, or a list of them if the model has several outputs and
    `output` names none of them; or what `postprocessor` makes of them
    (`pipeline.backends.postprocessing`). `mean` and `std` are fused into the model's graph, which
    then takes uint8.
    """

    settings: ClassVar[tuple[Setting, ...]] = ENGINE_SETTINGS

    @classmethod
    def fitting_instance_num(
        cls, instance_num: int, settings: Mapping[str, Any], engine: str
    ) -> int:
        """As many as keep the engine busy: more would take turns and slow each other down."""
        return fitting_instances(chosen_engine(settings, engine), instance_num)

    @classmethod
    def runs_on_gpu(cls, settings: Mapping[str, Any], engine: str) -> bool:
        """As the engine does."""
        return chosen_engine(settings, engine).device == "cuda"

    def init(self, config: InstanceConfig) -> None:
        """Load the model with the node's first instance, and create this instance's context."""
        pairs = batch_shapes(config.settings)
        engine: Engine = config.shared.get_or_create(ENGINE, lambda: _load(config))
        check_shapes(pairs, engine.inputs)
        self._postprocessor: Postprocessor = config.settings["postprocessor"]
        self._postprocessor.check(engine.model)
        self._specs = engine.inputs
        contexts: _Contexts = config.shared.get_or_create("contexts", lambda: _Contexts(engine))
        number, self._context = contexts.create()
        low, high = pairs[min(number, len(pairs) - 1)]
        most = engine.options.max_batch_size
        self.min, self.max = min(low.rows, most), min(high.rows, most)
        self._context.profile = config.profile_stages
        if isinstance(self._context, CudaContext) and _takes_images(self._specs):
            config.offers[ENGINE_INPUT_OFFER] = self._context

    def forward(self, items: Sequence[Item]) -> None:
        """Run one batch; an item of the wrong shape fails by itself."""
        if all(isinstance(item[TASK_DATA_KEY], GraphRow) for item in items):
            context: CudaContext = items[0][TASK_DATA_KEY].context
            pixels = [item[TASK_DATA_KEY].pixels for item in items]
            self._set_results(items, context.run_prologue(pixels))
            return
        batch, inputs = [], []
        for item in items:
            try:
                tensors = _tensors(item, self._specs)
            except EngineError as error:
                fail(item, error)
            else:
                batch.append(item)
                inputs.append(tensors)
        if not batch:
            return
        self._set_results(batch, self._context.run(inputs))
        if self._context.profile:
            for item in batch:
                item.setdefault(PROFILE_KEY, {}).update(
                    {f"{type(self).__name__}.{k}": v for k, v in self._context.times_ms.items()}
                )

    def close(self) -> None:
        """Free this instance's context."""
        self._context.close()

    def _set_results(self, items: Sequence[Item], outputs: Sequence[torch.Tensor]) -> None:
        results = iter(self._postprocessor.results(outputs))
        for item in items:
            count = item.get(TASK_REQUEST_SIZE_KEY, 1)
            rows = list(islice(results, count))
            item[TASK_RESULT_KEY] = rows[0] if count == 1 else _joined(rows)


def _takes_images(specs: Sequence[TensorSpec]) -> bool:
    """Whether rows are uint8 with the channels last, as operators on the GPU make them."""
    return len(specs) == 1 and specs[0].dtype == torch.uint8 and specs[0].channels_last


class _Contexts:
    """Creates the contexts of an engine one at a time: the n-th has the engine's n-th profile.

    Those beyond the last profile have the last one, which takes the largest batches; so has one
    that is made in place of one that broke, as the engine counts on.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._count = 0

    def create(self) -> tuple[int, ExecutionContext]:
        """The next context, for the calling thread, and how many there were before."""
        with self._lock:
            context = self._engine.create_context()
            self._count += 1
            return self._count - 1, context


def _tensors(item: Item, specs: Sequence[TensorSpec]) -> tuple[torch.Tensor, ...]:
    """An item's rows of each input; EngineError if they do not fit the model."""
    data = item[TASK_DATA_KEY]
    several = data if isinstance(data, list | tuple) else [data]
    if len(several) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise EngineError(
            f"the model has {len(specs)} inputs ({names}), got {len(several)} tensors"
        )
    return tuple(
        _rows(one, spec, item.get(TASK_REQUEST_SIZE_KEY, 1))
        for one, spec in zip(several, specs, strict=True)
    )


def _rows(data: Any, spec: TensorSpec, count: int) -> torch.Tensor:
    data = as_gpu_tensor(data)
    if not isinstance(data, torch.Tensor):
        raise EngineError(f"expected a tensor, such as Mat2Tensor gives, got {type(data).__name__}")
    rows = data.unsqueeze(0) if data.dim() == len(spec.item_shape) else data
    rows = fitting(rows, spec)
    if rows.shape[0] != count:
        raise EngineError(
            f"the item has request_size = {count}, and its tensor {rows.shape[0]} rows"
        )
    return rows


def _joined(rows: list[Any]) -> Any:
    """The results of an item of several rows as one: tensors of all rows, or a list."""
    if isinstance(rows[0], torch.Tensor):
        return torch.cat(rows)
    if isinstance(rows[0], list):
        return [torch.cat(output) for output in zip(*rows, strict=True)]
    return rows


def chosen_engine(settings: Mapping[str, Any], engine: str) -> EngineChoice:
    """The engine, and the precision in which it runs this node.

    fp16 may come from a file that was written for a GPU; bf16 and int8 are wanted.
    """
    wanted = settings["precision"]
    choice = choose_engine(engine, wanted if wanted in ("bf16", "int8") else None)
    precision = fallback_precision(choice.name, wanted or choice.precision)
    return replace(choice, precision=precision)


def _load(config: InstanceConfig) -> Engine:
    settings = config.settings
    if settings["model"] is None:
        raise PipelineConfigError("TensorrtTensor needs model, an ONNX file")
    check_activation(settings)
    wanted = settings["precision"]
    choice = chosen_engine(settings, config.engine)
    if choice.name != "tensorrt":
        logger.info("%s: engine %s is the fallback for TensorRT", config.node, choice.name)
    if wanted not in (None, choice.precision):
        logger.info(
            "%s: %s runs %s instead of %s", config.node, choice.name, choice.precision, wanted
        )
    model = prepared_model(open_model(settings["model"]), settings)
    return load_engine(choice, model, engine_options(config, choice.precision))


def prepared_model(model: OnnxModel, settings: Mapping[str, Any]) -> OnnxModel:
    """A model with the output, the image size and the mean and std that settings name.

    Raises:
        EngineError, PipelineConfigError: it has no such output, or takes no such images.
    """
    model = _with_output(model, settings["output"])
    return _normalised(_sized(model, settings["max"]), settings)


def _with_output(model: OnnxModel, output: str | None) -> OnnxModel:
    if output == AUTO:
        return classifier_output(model, None)
    return model if output is None else model.with_output(output)


def _sized(model: OnnxModel, largest: BatchShape | Sequence[BatchShape]) -> OnnxModel:
    """A model that leaves the size of its images open gets the one that `max` names."""
    first = largest if isinstance(largest, BatchShape) else largest[0]
    shapes = first.item_shapes
    if model.input_size is None and len(model.inputs) == len(shapes) == 1 and len(shapes[0]) == 3:
        return model.with_input_size(*shapes[0][1:])
    return model


def _normalised(model: OnnxModel, settings: Any) -> OnnxModel:
    mean, std = settings["mean"], settings["std"]
    if (mean is None) != (std is None):
        missing = "mean" if mean is None else "std"
        raise PipelineConfigError(f"mean and std go together; {missing} is missing")
    return model if mean is None else model.with_uint8_input(Normalization(mean, std))


def check_shapes(
    pairs: Sequence[tuple[BatchShape, BatchShape]], inputs: Sequence[TensorSpec]
) -> None:
    """Refuse a `min` or `max` with another shape than a model's inputs have.

    Raises:
        PipelineConfigError: which, and what the model takes.
    """
    for low, high in pairs:
        _check_shape("min", low, inputs)
        _check_shape("max", high, inputs)


def _check_shape(name: str, shape: BatchShape, inputs: Sequence[TensorSpec]) -> None:
    if not shape.item_shapes:
        return
    if len(shape.item_shapes) != len(inputs):
        raise PipelineConfigError(
            f"{name} = {shape} has shapes of {len(shape.item_shapes)} inputs, the model has "
            f"{len(inputs)}"
        )
    for given, spec in zip(shape.item_shapes, inputs, strict=True):
        wanted = spec.item_shape
        fits = len(wanted) == len(given) and all(
            w is None or w == g for w, g in zip(wanted, given, strict=True)
        )
        if not fits:
            text = "x".join("?" if size is None else str(size) for size in wanted)
            which = "the model's input" if len(inputs) == 1 else f"input {spec.name!r}"
            raise PipelineConfigError(f"{name} = {shape}, but one row of {which} is {text}")
