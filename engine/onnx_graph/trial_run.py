"""A model tried out on made-up inputs, for what its graph does not say."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from engine.cache.folders import cache_folder
from engine.cpu.cores import available_cores
from engine.onnx_graph.inputs import NHWC
from engine.onnx_graph.tensors import nodes_within, true_inputs
from engine.onnx_graph.trial import Trial, ValueRange, keep_trial, read_trial, value_range
from interfaces.error_text import first_line

_logger = logging.getLogger(__name__)

# From which to which value the elements of an input are; the first two rows also run together.
_FLOAT_RANGES = ((0, 2), (0, 2), (-2, 2), (0, 255))
_BYTE_RANGES = ((0, 256), (0, 256), (0, 128), (128, 256))
# Of an image whose file leaves its size, or its channels, open.
_USUAL_SIZE, _CHANNELS = 224, 3
# How far rows in a batch may be from the same rows alone, relative to the largest value. What
# rounds to few bits may round another way; what takes its scale from the whole batch often does.
_TOLERANCE, _COARSE_TOLERANCE, _DYNAMIC_TOLERANCE = 1e-3, 0.05, 0.2
_COARSE_TYPES = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.UINT8}

Feeds = dict[str, npt.NDArray[Any]]
_Outputs = list[npt.NDArray[Any]]
_Run = Callable[[Feeds], _Outputs]

# What a trial may take. A fixed batch gets longer: without a trial such a model is not served.
_TIME_LIMIT_S, _TIME_LIMIT_OF_FIXED_BATCH_S = 10.0, 60.0
# Trials that are over sooner are not worth two files.
_WORTH_KEEPING_S = 0.2

_trials: dict[str, Trial] = {}


def try_out(
    proto: onnx.ModelProto,
    sha256: str,
    fixed_batch: int | None,
    open_size: tuple[int, int] | None = None,
    layout: str | None = None,
) -> Trial:
    """Run a model on a few made-up rows, alone and two of them in one batch.

    This is done once: what it shows is kept in the cache folder, for the server's other processes.

    Args:
        proto: the model, with a batch of any size.
        sha256: of its file.
        fixed_batch: the size of a batch that the file names, or None.
        open_size: height and width of its images, in pixels, where it leaves them open.
        layout: where its channels are, one of `inputs.LAYOUTS`, if its user says so.
    """
    if (open_size or layout) and any(map(_leaves_open, true_inputs(proto))):
        height, width = open_size or (_USUAL_SIZE, _USUAL_SIZE)
        proto = _sized(proto, (height, width), layout)
        sha256 = f"{sha256}-{layout or 'any'}-{height}x{width}"
    if sha256 not in _trials:
        # Imported here because it takes its time, and packaged models need no trial.
        import onnxruntime

        path = cache_folder() / f"trial-{sha256}-onnxruntime-{onnxruntime.__version__}.json"
        _trials[sha256] = read_trial(path) or _tried_and_kept(proto, fixed_batch, path)
    return _trials[sha256]


def _leaves_open(value: onnx.ValueInfoProto) -> bool:
    """Whether an input is an image of any height or width."""
    dims = value.type.tensor_type.shape.dim
    return len(dims) == 4 and any(not dim.dim_value for dim in dims[1:])


def _sized(proto: onnx.ModelProto, size: tuple[int, int], layout: str | None) -> onnx.ModelProto:
    """A copy whose images have that height and width, and three channels, where they have none."""
    sized = onnx.ModelProto()
    sized.CopyFrom(proto)
    for value in filter(_leaves_open, true_inputs(sized)):
        dims = value.type.tensor_type.shape.dim
        comes_last = dims[3].dim_value in (1, 3) and dims[1].dim_value not in (1, 3)
        is_last = layout == NHWC if layout else comes_last
        row = (*size, _CHANNELS) if is_last else (_CHANNELS, *size)
        for dim, pixels in zip(dims[1:], row, strict=True):
            if not dim.dim_value:
                dim.dim_value = pixels
    return sized


def _tried_and_kept(proto: onnx.ModelProto, fixed_batch: int | None, path: Path) -> Trial:
    began_s = time.monotonic()
    trial = _tried(proto, fixed_batch)
    if trial.is_over and time.monotonic() - began_s >= _WORTH_KEEPING_S:
        keep_trial(path, trial)
    return trial


def _tried(proto: onnx.ModelProto, fixed_batch: int | None) -> Trial:
    limit_s = _TIME_LIMIT_S
    if fixed_batch is not None:
        limit_s = _TIME_LIMIT_OF_FIXED_BATCH_S
    elif any(node.op_type == "Loop" for node in nodes_within(proto.graph)):
        # Only the warm-up of a server has a time limit for that.
        _logger.info("what the model does with a batch is not tried out: its loop may have no end")
        return Trial()
    try:
        with _runner(proto, limit_s) as run:
            return _verdict(proto, fixed_batch, run)
    except Exception as error:  # noqa: BLE001 (onnxruntime's own classes share no other base)
        reason = first_line(error)
    _logger.info("what the model does with a batch cannot be tried out: %s", reason)
    if fixed_batch is None:
        return Trial()
    reason = f"it cannot be tried out whether it takes others: {reason}"
    if fixed_batch == 1:
        return Trial(only_alone=reason)
    outputs = [value.name for value in proto.graph.output]
    return Trial(dict.fromkeys(outputs, _fixed(reason, fixed_batch)))


def _verdict(proto: onnx.ModelProto, fixed_batch: int | None, run: _Run) -> Trial:
    rows = made_up_rows(proto)
    singles = _outputs_alone(proto, rows, run)
    outputs = list(singles)
    flaws = _outputs_without_rows(singles)
    pair = {name: np.concatenate([rows[0][name], rows[1][name]]) for name in rows[0]}
    together, why_not = _together(run, pair)
    if why_not and fixed_batch != 1:
        return Trial({**dict.fromkeys(outputs, _flaw(why_not, fixed_batch)), **flaws})
    if not why_not and fixed_batch == 1:
        why_not = _why_not_two_rows(outputs, together)
    if why_not:
        # Where two rows cannot run, the first one has to be the same again.
        count, feeds, given = 1, rows[0], run(rows[0])
    else:
        count, feeds, given = 2, pair, together
    tolerance = _tolerance(proto)
    for index, name in enumerate(outputs):
        if name in flaws:
            continue
        expected, run_again = singles[name][:count], partial(_nth_output, run, feeds, index)
        if reason := _why_rows_disagree(name, expected, given[index], run_again, tolerance):
            flaws[name] = _flaw(reason, None if why_not else fixed_batch)
    sound = {name: values for name, values in singles.items() if name not in flaws}
    return Trial(flaws, _value_ranges(sound, tolerance), why_not, is_over=True)


def _outputs_alone(proto: onnx.ModelProto, rows: Sequence[Feeds], run: _Run) -> dict[str, _Outputs]:
    """By the name of an output what it is for each row."""
    alone = [run(row) for row in rows]
    names = [value.name for value in proto.graph.output]
    return {name: [lone[index] for lone in alone] for index, name in enumerate(names)}


def _outputs_without_rows(singles: Mapping[str, _Outputs]) -> dict[str, str]:
    """By the name of an output why it has no rows, for those that have none."""
    reasons = {name: _why_no_rows(name, values) for name, values in singles.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _value_ranges(singles: Mapping[str, _Outputs], tolerance: float) -> dict[str, ValueRange]:
    """By the name of an output of floats what its finite values were."""
    ranges = {
        name: value_range(values, min(tolerance, _COARSE_TOLERANCE))
        for name, values in singles.items()
        if values[0].dtype.kind == "f"
    }
    return {name: found for name, found in ranges.items() if found}


def _together(run: _Run, pair: Feeds) -> tuple[_Outputs, str]:
    """The outputs for two inputs in one batch, or why there are none."""
    try:
        return run(pair), ""
    except _TimeLimitError:
        raise
    except Exception as error:  # noqa: BLE001
        return [], f"it cannot run two inputs in one batch: {first_line(error)}"


def _why_not_two_rows(outputs: Sequence[str], together: _Outputs) -> str:
    for name, values in zip(outputs, together, strict=True):
        if not values.ndim or values.shape[0] != 2:
            shape = " x ".join(map(str, values.shape)) or "a lone number"
            return f"output {name!r} of two inputs is {shape}"
    return ""


class _TimeLimitError(Exception):
    """A trial has taken too long."""


@contextmanager
def _runner(proto: onnx.ModelProto, limit_s: float) -> Iterator[_Run]:
    """What runs the model; within `limit_s` in all, or it raises _TimeLimitError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = available_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    # onnxruntime looks at it between any two nodes, also those of a loop's body.
    run_options = onnxruntime.RunOptions()

    def run(feeds: Feeds) -> _Outputs:
        try:
            outputs: _Outputs = session.run(None, feeds, run_options)
        except Exception as error:
            if run_options.terminate:
                raise _TimeLimitError(f"it has taken more than {limit_s:g} s") from error
            raise
        return outputs

    timer = threading.Timer(limit_s, setattr, (run_options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield run
    finally:
        timer.cancel()
        timer.join()


def made_up_rows(proto: onnx.ModelProto) -> list[Feeds]:
    """A few inputs of one row each, by the names of the model's inputs; the same at each call."""
    random = np.random.default_rng(seed=0)
    rows = []
    for floats, pixels in zip(_FLOAT_RANGES, _BYTE_RANGES, strict=True):
        feeds = {}
        for value in true_inputs(proto):
            tensor = value.type.tensor_type
            dims = list(tensor.shape.dim)[1:]
            open_size = _USUAL_SIZE if len(dims) == 3 else 1
            shape = [1, *(dim.dim_value or open_size for dim in dims)]
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            # Of other integers little is known: 0 and 1 are an index into most tables.
            low, high = floats if dtype.kind == "f" else pixels if dtype == np.uint8 else (0, 2)
            feeds[value.name] = random.uniform(low, high, shape).astype(dtype)
        rows.append(feeds)
    return rows


def _why_no_rows(name: str, singles: _Outputs) -> str:
    if all(single.ndim and single.shape[0] == 1 for single in singles):
        return ""
    shape = " x ".join(map(str, singles[0].shape)) or "a lone number"
    return (
        f"output {name!r} has no batch dimension: for one input it is {shape}; export the model "
        f"again with one in front: N x classes"
    )


def _nth_output(run: _Run, feeds: Feeds, index: int) -> npt.NDArray[Any]:
    return run(feeds)[index]


def _why_rows_disagree(
    name: str,
    singles: _Outputs,
    together: npt.NDArray[Any],
    run_again: Callable[[], npt.NDArray[Any]],
    tolerance: float,
) -> str:
    """Why an input's row is another one beside other inputs in a batch; "" where it is not."""
    expected = np.concatenate(singles[:2])
    if together.shape != expected.shape:
        shape = " x ".join(map(str, together.shape))
        return f"its rows depend on each other: output {name!r} of two inputs is {shape}"
    if _are_close(together, expected, tolerance):
        return ""
    if not _are_close(together, run_again(), tolerance):
        return f"output {name!r} is another one each time for the same input"
    return (
        f"its rows depend on each other: output {name!r} of an input is another one beside other "
        f"inputs in a batch"
    )


def _are_close(one: npt.NDArray[Any], other: npt.NDArray[Any], tolerance: float) -> bool:
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    finite = np.abs(other[np.isfinite(other)].astype(np.float64))
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(one, other, rtol=0, atol=tolerance * scale, equal_nan=True))


def _tolerance(proto: onnx.ModelProto) -> float:
    kinds = {node.op_type for node in proto.graph.node}
    if any(kind.startswith("DynamicQuantize") for kind in kinds):
        return _DYNAMIC_TOLERANCE
    is_coarse = any("Quantize" in kind or kind.startswith("QLinear") for kind in kinds)
    types = {tensor.data_type for tensor in proto.graph.initializer}
    return _COARSE_TOLERANCE if is_coarse or types & _COARSE_TYPES else _TOLERANCE


def _flaw(reason: str, fixed_batch: int | None) -> str:
    if fixed_batch is not None:
        return _fixed(reason, fixed_batch)
    return f"{reason}; export it again in inference mode, with a dynamic batch dimension in front"


def _fixed(reason: str, fixed_batch: int) -> str:
    return (
        f"it is made for batches of exactly {fixed_batch} ({reason}); "
        f"export it again with a dynamic batch dimension"
    )
