"""What an engine is: a loaded model, and the execution contexts that run batches through it.

The words are TensorRT's. An `Engine` holds the weights and is shared; an `ExecutionContext` holds
what one run at a time needs (input buffers, a stream, an inference request) and belongs to one
thread. A provider subclasses both and writes three short hooks: `Engine._load`,
`Engine.create_context` and `ExecutionContext._execute`; the base classes own every check, so that
all providers refuse the same mistakes with the same words (an idea of Polygraphy's runners).
"""

from __future__ import annotations

import hashlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from engine.errors import EngineError
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.tensor_spec import TensorSpec
from interfaces.error_text import first_line

# Of a batch: rows, channels, height, width.
_IMAGE_DIMENSIONS = 4


class ExecutionContext(ABC):
    """Runs batches, one at a time.

    Create it in the thread that will run it: a GPU provider binds its stream to that thread, and
    a CPU provider its thread count.

    Attributes:
        any_thread: whether other threads may run it, too, one at a time, and it computes in theirs.
        profile: whether to keep the times of a run, for which copying and computing take turns.
        times_ms: milliseconds of the last profiled run: "copy" into the input buffers, and "infer"
            with the copy of the outputs.
    """

    any_thread: ClassVar[bool] = False
    profile = False

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._max_batch_size = engine.options.max_batch_size
        self._is_open = engine.is_open
        # Of the rows that the buffers hold, where these may have several shapes.
        self._shapes = [spec.largest for spec in engine.inputs]
        try:
            most = self._max_batch_size
            self._inputs = [self._allocate_input(spec, most) for spec in engine.inputs]
        except RuntimeError as error:
            # torch has no class of its own for that.
            raise EngineError(
                f"there is no memory for batches of {self._max_batch_size} rows: "
                f"{first_line(error)}"
            ) from error
        self.times_ms: dict[str, float] = {}

    def run(self, items: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
        """Run one batch.

        Args:
            items: one entry per request, each with one tensor per model input. A tensor has a
                leading dimension of one or more rows, the input's item shape behind it, and a
                dtype and values that `fitting` takes.

        Returns:
            One tensor per model output in CPU memory, with the rows of all items in order. They
            may be views of buffers that the next run overwrites.

        Raises:
            EngineError: no rows, more rows than `max_batch_size`, a tensor of another shape or
                with values that the input cannot hold, or rows of several shapes.
        """
        items = [self._fitting(item) for item in items]
        rows = sum(item[0].shape[0] for item in items)
        if rows == 0:
            raise EngineError("a batch needs at least one row, got none")
        if rows > self._max_batch_size:
            raise EngineError(f"a batch holds at most {self._max_batch_size} rows, got {rows}")
        if self._is_open:
            self._set_shapes(items, rows)
        if not self.profile:
            self._place(items, rows)
            return self._execute(rows)
        started_s = time.monotonic()
        self._place(items, rows)
        self._wait()
        placed_s = time.monotonic()
        outputs = self._execute(rows)
        self.times_ms = {
            "copy": (placed_s - started_s) * 1000,
            "infer": (time.monotonic() - placed_s) * 1000,
        }
        return outputs

    def _fitting(self, item: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The tensors of one item as the model takes them; EngineError if they do not fit."""
        if len(item) != len(self._inputs):
            raise EngineError(
                f"the model has {len(self._inputs)} inputs, got {len(item)} tensors for one item"
            )
        tensors = [
            fitting(tensor, spec) for tensor, spec in zip(item, self.engine.inputs, strict=True)
        ]
        if len(row_counts := {tensor.shape[0] for tensor in tensors}) != 1:
            raise EngineError(f"the tensors of one item have {sorted(row_counts)} rows")
        return tensors

    def _set_shapes(self, items: Sequence[Sequence[torch.Tensor]], rows: int) -> None:
        """Make the buffers ready for so many rows of the items' shapes, which must be the same."""
        shapes = [tuple(tensor.shape[1:]) for tensor in items[0]]
        for item in items[1:]:
            if any(tensor.shape[1:] != shape for tensor, shape in zip(item, shapes, strict=True)):
                raise EngineError("the rows of one batch must have one shape")
        if shapes != self._shapes or rows > self._inputs[0].shape[0]:
            specs = zip(self.engine.inputs, shapes, strict=True)
            self._inputs = [self._allocate_input(spec.sized(shape), rows) for spec, shape in specs]
            self._shapes = list(shapes)

    def _place(
        self,
        items: Sequence[Sequence[torch.Tensor]],
        rows: int,  # noqa: ARG002 (for contexts that copy the whole batch at once)
    ) -> None:
        """Copy the items into the input buffers, one behind the other."""
        copy_rows(items, self._inputs)

    def _wait(self) -> None:  # noqa: B027 (on a CPU nothing is outstanding)
        """Wait until what was enqueued is done."""

    def _allocate_input(self, spec: TensorSpec, rows: int) -> torch.Tensor:
        return spec.allocate(rows)

    @abstractmethod
    def _execute(self, rows: int) -> list[torch.Tensor]:
        """Run the first `rows` rows of the input buffers; return one tensor per output."""

    def close(self) -> None:  # noqa: B027 (most contexts hold nothing that must be freed by hand)
        """Free what the context holds outside of Python. The context is unusable afterwards."""


def copy_rows(items: Sequence[Sequence[torch.Tensor]], buffers: Sequence[torch.Tensor]) -> None:
    """Copy the rows of items, each with one tensor a buffer, one behind the other."""
    start = 0
    for item in items:
        stop = start + item[0].shape[0]
        for tensor, buffer in zip(item, buffers, strict=True):
            buffer[start:stop].copy_(tensor, non_blocking=True)
        start = stop


def fitting(tensor: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    """One or more rows of an input, in a dtype from which they are copied without loss.

    Args:
        tensor: of shape (rows, ...) and any dtype. Whole numbers may come as floats (bfloat16
            255.0 for uint8 255). Images of an input of channels, height and width may have their
            channels last.
        spec: the input.

    Returns:
        `tensor` itself, or a view with its channels first, where its dtype is the input's, or the
        input takes floats.

    Raises:
        EngineError: another shape, complex numbers, or values for an input of integers that are
            not finite, not whole or beyond its dtype.
    """
    if tensor.shape[1:] != spec.item_shape:
        tensor = _fitting_shape(tensor, spec)
    if tensor.dtype == spec.dtype:
        return tensor
    if tensor.is_complex():
        raise EngineError(f"input {spec.name!r} takes real numbers, got {_text(tensor.dtype)}")
    if spec.dtype.is_floating_point or spec.dtype == torch.bool:
        return tensor
    return _whole_numbers(tensor, spec)


def _fitting_shape(tensor: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    """Rows that an input takes as they are, or with their channels moved to the front."""
    given = tuple(tensor.shape)
    if spec.takes(given[1:]):
        return tensor
    if len(given) == _IMAGE_DIMENSIONS and spec.takes((given[3], given[1], given[2])):
        return tensor.permute(0, 3, 1, 2)
    got = "x".join(map(str, given)) or "a scalar"
    raise EngineError(f"input {spec.name!r} takes Nx{spec.rows_text}, got {got}")


def _whole_numbers(tensor: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    """A tensor in the integer dtype of an input, which a plain cast would wrap around."""
    if not tensor.numel():
        return tensor
    is_float = tensor.dtype.is_floating_point
    # These two know all operations, which dtypes such as uint16 do not.
    values = tensor.to(torch.float64 if is_float else torch.int64)
    low, high = (float(value) for value in values.aminmax())
    limits = torch.iinfo(spec.dtype)
    takes = f"input {spec.name!r} takes whole numbers from {limits.min} to {limits.max}"
    given = f"{_text(tensor.dtype)} values"
    if not (math.isfinite(low) and math.isfinite(high)):
        raise EngineError(f"{takes}, got {given} that are not finite (NaN or infinity)")
    # Which values are pixels and which are normalized ones no values tell, but fractions are
    # nothing that a decoder gives: what made them has to say what they are.
    if is_float and not torch.equal(values.round(), values):
        raise EngineError(
            f"{takes}, got {given} with fractions, from {low:.4g} to {high:.4g}: after a resize in "
            f"floats use .round().to(torch.{_text(spec.dtype)}); if they are divided by 255 or "
            f"normalized, give them without that"
        )
    if low < limits.min or high > limits.max:
        raise EngineError(
            f"{takes}, got {given} from {low:.6g} to {high:.6g}: clamp them, or give the "
            f"pixels as they are, without mean and std"
        )
    return values.to(spec.dtype)


def _text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Engine(ABC):
    """A model loaded by one provider.

    Attributes:
        name: the provider's name, as `--engine` spells it.
        precisions: what `EngineOptions.precision` may be here.
        device: "cpu" or "cuda".
        keeps_cache: False where nothing is prepared from a model that is worth keeping in a file.
        thread_safe: True where any thread may create contexts at will and cheaply, so that a
            server may run the engine without a lock and without planning for instances.
        inputs: the model's inputs, as `ExecutionContext.run` takes them.
        outputs: the model's outputs.
        versions: package name to version of what runs the model.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    device: ClassVar[str]
    keeps_cache: ClassVar[bool] = True
    thread_safe: ClassVar[bool]

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(self, model: OnnxModel, options: EngineOptions) -> None:
        if options.precision not in self.precisions:
            raise EngineError(
                f"engine {self.name!r} runs {' or '.join(self.precisions)}, "
                f"got precision {options.precision!r}"
            )
        self.model = model
        self.options = options
        self.inputs = model.inputs
        self.outputs = model.outputs
        self._load()

    @classmethod  # noqa: B027 (most take what they get)
    def check_host(cls, precision: str) -> None:
        """Raise MissingOnHostError where this host's CPU cannot compute in that precision."""

    @property
    def is_open(self) -> bool:
        """Whether an input takes rows of several shapes; those of one batch have one."""
        return any(spec.is_open for spec in self.inputs)

    @property
    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Package name to version of what runs the model."""

    @abstractmethod
    def _load(self) -> None:
        """Load `self.model` as `self.options` say."""

    @abstractmethod
    def create_context(self) -> ExecutionContext:
        """A context for the calling thread."""

    def cache_key(
        self, graph: bytes, *, device: str, settings: Mapping[str, str]
    ) -> dict[str, str]:
        """Everything that a prepared engine depends on, for its cache file.

        Args:
            graph: the serialized graph that it is prepared from.
            device: identity of the CPU or GPU that it is prepared for.
            settings: whatever else of the provider's settings is built into it.
        """
        versions = ", ".join(f"{name} {version}" for name, version in sorted(self.versions.items()))
        return {
            "provider": self.name,
            "provider version": versions,
            "model": self.model.sha256,
            "graph": hashlib.sha256(graph).hexdigest(),
            "precision": self.options.precision,
            "device": device,
            **settings,
        }

    def to_device(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows where contexts read them without a copy from CPU memory; on a CPU as they are.

        Unlike a context's `run`, this may be called by any number of threads at once.
        """
        if self.device == "cpu":
            return rows
        return rows.to(torch.device(self.device, self.options.device_id))

    def close(self) -> None:  # noqa: B027 (most providers free everything with the object)
        """Free the model. Contexts must be closed before."""
