"""The backend that runs the model: `TensorrtTensor`, whichever engine stands behind it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch

from engine.classifier import classifier_output
from engine.contexts.cuda_context import CudaContext
from engine.errors import EngineError
from engine.interface import Engine, ExecutionContext, fitting
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
from pipeline.backends.engine_settings import (
    ENGINE_SETTINGS,
    batch_shapes,
    check_shapes,
    engine_options,
    image_size,
    normalization,
    row_limits,
)
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
from pipeline.language.settings import Setting

logger = logging.getLogger(__name__)

# The rows of one item: a tensor an input of the model.
_Rows: TypeAlias = tuple[torch.Tensor, ...]

ENGINE = "engine"
ENGINE_BACKEND = "TensorrtTensor"
"""The name by which configurations call the backend that runs the model."""


@register(ENGINE_BACKEND)
class TensorrtTensor(Backend):
    """Batches of tensors through the model; one execution context an instance, no lock.

    Takes items whose data is a tensor of one row, (1, 3, height, width) or (3, height, width), or
    of as many rows as the item's `request_size` says; or a list of tensors, one an input of the
    model. Arrays of NumPy count as tensors, and the channels of an image may come last. Where the
    model takes rows of several shapes, those of one shape in a batch run together.

    Gives each item a tensor of its rows, or a list of them if the model has several outputs and
    `output` names none of them; or what `postprocessor` makes of them
    (`pipeline.backends.postprocessing`). `mean` and `std` are fused into the model's graph, which
    then takes uint8; so is what the model wants otherwise of R, G and B: its channels last
    (`model::layout`), the other way round (`model::color`), or one grey channel.
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

    @property
    def stage(self) -> str:
        """The engine's name."""
        return self._context.engine.name

    def init(self, config: InstanceConfig) -> None:
        """Load the model with the node's first instance, and create this instance's context."""
        pairs = batch_shapes(config.settings)
        engine: Engine = config.shared.get_or_create(ENGINE, lambda: _load(config))
        self._postprocessor: Postprocessor = config.settings["postprocessor"]
        self._postprocessor.check(engine.model)
        self._specs = engine.inputs
        self._is_open = engine.is_open
        contexts: _Contexts = config.shared.get_or_create("contexts", lambda: _Contexts(engine))
        number, self._context = contexts.create()
        low, high = pairs[min(number, len(pairs) - 1)]
        most = engine.options.max_batch_size
        self.min, self.max = min(low.rows, most), min(high.rows, most)
        self.any_thread = self._context.any_thread
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
        if not self._is_open:
            self._run(batch, inputs)
            return
        by_shape: dict[Any, tuple[list[Item], list[_Rows]]] = {}
        for item, tensors in zip(batch, inputs, strict=True):
            shapes = tuple(tensor.shape[1:] for tensor in tensors)
            together = by_shape.setdefault(shapes, ([], []))
            together[0].append(item)
            together[1].append(tensors)
        for alike, rows in by_shape.values():
            self._run(alike, rows)

    def _run(self, items: Sequence[Item], inputs: Sequence[_Rows]) -> None:
        """Run what is left of a batch, or those of it that have one shape."""
        if not items:
            return
        self._set_results(items, self._context.run(inputs))
        if self._context.profile:
            for item in items:
                item.setdefault(PROFILE_KEY, {}).update(
                    {f"{self.stage}.{name}": ms for name, ms in self._context.times_ms.items()}
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

    Further contexts, and contexts that replace broken ones, have the last profile, which takes the
    largest batches.
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


def _tensors(item: Item, specs: Sequence[TensorSpec]) -> _Rows:
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
        data = _as_tensor(data)
    rows = data.unsqueeze(0) if data.dim() == len(spec.item_shape) else data
    rows = fitting(rows, spec)
    if rows.shape[0] != count:
        raise EngineError(
            f"the item has request_size = {count}, and its tensor {rows.shape[0]} rows"
        )
    return rows


def _as_tensor(data: Any) -> torch.Tensor:
    """A matrix as a tensor of the same memory."""
    if not isinstance(data, np.ndarray):
        raise EngineError(f"expected a tensor, such as Mat2Tensor gives, got {type(data).__name__}")
    try:
        # torch takes no array that runs backwards, and warns of one that must not be written.
        return torch.from_numpy(np.require(data, requirements=("C", "W")))
    except TypeError:
        raise EngineError(f"expected numbers, got an array of dtype {data.dtype}") from None


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
    reason = choice.reason
    if wanted not in (None, precision):
        reason = f"{reason}; {precision} instead of the file's {wanted}, which it does not run"
    return replace(choice, precision=precision, reason=reason)


def _load(config: InstanceConfig) -> Engine:
    settings = config.settings
    if settings["model"] is None:
        raise PipelineConfigError("TensorrtTensor needs model, an ONNX file")
    check_activation(settings)
    choice = chosen_engine(settings, config.engine)
    open_size = image_size(batch_shapes(settings))
    opened = open_model(settings["model"], None, open_size, settings["model::layout"])
    model = prepared_model(opened, settings)
    check_shapes(batch_shapes(settings), model.inputs)
    return load_engine(choice, model, engine_options(config, choice.precision))


def prepared_model(model: OnnxModel, settings: Mapping[str, Any]) -> OnnxModel:
    """A model with the output, the sizes and the mean and std that settings name.

    Shapes that do not fit it are left alone: see `check_shapes`.

    Raises:
        EngineError, PipelineConfigError: it has no such output, or takes no such images.
    """
    model = _with_output(model, settings["output"])
    layout, color = settings["model::layout"], settings["model::color"]
    given = normalization(settings)
    if given is None and layout is None and color is None:
        return _limited(model, settings)
    model = _limited(model.with_image_input(layout, color), settings)
    return model if given is None else model.with_uint8_input(given)


def _with_output(model: OnnxModel, output: str | None) -> OnnxModel:
    if output == AUTO:
        return classifier_output(model, None)
    return model if output is None else model.with_output(output)


def _limited(model: OnnxModel, settings: Mapping[str, Any]) -> OnnxModel:
    """A model that leaves sizes open gets those that `min` and `max` name."""
    limits = row_limits(settings, model.inputs)
    is_open = any(spec.is_open for spec in model.inputs)
    return model.with_limits(limits) if limits and is_open else model
