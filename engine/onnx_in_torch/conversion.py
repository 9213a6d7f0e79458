"""An ONNX graph as a torch module."""

from __future__ import annotations

from collections import Counter

import onnx
import torch
from torch import Tensor, nn

from engine.errors import EngineError
from engine.onnx_in_torch.fusion import fuse_convolutions
from engine.onnx_in_torch.node import Node, read_nodes
from engine.onnx_in_torch.operators import OPERATORS
from engine.onnx_in_torch.shape_operators import to_torch
from interfaces.error_text import first_line

# Their weights decide the precision; all other operators take what comes.
_MATRIX_OPERATORS = {"Conv", "Gemm", "MatMul"}


class OnnxModule(nn.Module):
    """Runs the nodes of a graph one after the other.

    The floating-point constants are buffers, so that `.to(device)` moves the whole network.
    Shapes, axes, indices and single numbers stay in the CPU's memory: an operator reads their
    values, which would stall a GPU. What does not depend on the inputs is computed once, here.

    Args:
        proto: the model.
        dtype: the precision of convolutions and matrix products.
        fuse: run a convolution and what follows it as one kernel, where that is possible.

    Raises:
        EngineError: the graph has an operator that is not in `OPERATORS`, or a constant that
            torch cannot hold.
    """

    def __init__(
        self, proto: onnx.ModelProto, dtype: torch.dtype = torch.float32, *, fuse: bool = False
    ) -> None:
        super().__init__()
        graph = proto.graph
        nodes = read_nodes(proto)
        for node in nodes:
            if node.op not in OPERATORS:
                raise EngineError(
                    f"the torch engine has no operator {node.op} (node {node.name!r}); "
                    f"use engine onnxruntime or openvino for this model"
                )
        constants = {tensor.name: to_torch(tensor) for tensor in graph.initializer}
        self._input_names = [v.name for v in graph.input if v.name not in constants]
        self._output_names = [v.name for v in graph.output]
        with torch.inference_mode():
            self._nodes = _fold(nodes, constants)
        matrices = {
            name for node in self._nodes if node.op in _MATRIX_OPERATORS for name in node.inputs
        }
        if fuse:
            self._nodes = fuse_convolutions(self._nodes, {*self._output_names})
        used = {name for node in self._nodes for name in node.inputs} | {*self._output_names}
        self._cpu_constants: dict[str, Tensor] = {}
        self._buffer_names: dict[str, str] = {}
        for name in used & constants.keys():
            tensor = constants[name]
            if tensor.is_floating_point() and tensor.ndim:
                self._buffer_names[name] = f"constant_{len(self._buffer_names)}"
                kept = _as_weight(tensor, dtype) if name in matrices else tensor
                self.register_buffer(self._buffer_names[name], kept)
            else:
                self._cpu_constants[name] = tensor
        self._released = _last_uses(self._nodes, keep={*constants, *self._output_names})

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the graph.

        Args:
            inputs: one tensor per model input, in the memory order of the graph.

        Returns:
            One tensor per model output.

        Raises:
            EngineError: an operator cannot compute what its node asks for.
        """
        values: dict[str, Tensor | None] = {"": None, **self._cpu_constants}
        for name, buffer in self._buffer_names.items():
            values[name] = self.get_buffer(buffer)
        values.update(zip(self._input_names, inputs, strict=True))
        for node, released in zip(self._nodes, self._released, strict=True):
            _run(node, values)
            for name in released:
                values.pop(name, None)
        outputs = [values.get(name) for name in self._output_names]
        computed = tuple(output for output in outputs if output is not None)
        if len(computed) < len(outputs):
            missing = self._output_names[outputs.index(None)]
            raise EngineError(f"the torch engine does not compute the model's output {missing!r}")
        return computed


def _run(node: Node, values: dict[str, Tensor | None]) -> None:
    """Compute one node and store its outputs among `values`."""
    try:
        result = OPERATORS[node.op](node, *(values[name] for name in node.inputs))
    except (RuntimeError, IndexError, KeyError, TypeError, ValueError, EngineError) as error:
        raise EngineError(f"node {node.name!r} ({node.op}) failed: {first_line(error)}") from error
    outputs = result if isinstance(result, tuple) else (result,)
    # Some operators have outputs that are of use in training only, and that are not computed.
    values.update(zip(node.outputs, outputs, strict=False))


def _fold(nodes: list[Node], constants: dict[str, Tensor]) -> list[Node]:
    """Compute what depends on constants alone into `constants`; return the other nodes."""
    left = []
    for node in nodes:
        if all(name == "" or name in constants for name in node.inputs):
            values: dict[str, Tensor | None] = {
                name: constants.get(name) for name in ("", *node.inputs)
            }
            _run(node, values)
            computed = {name: values.get(name) for name in node.outputs}
            constants.update({k: v for k, v in computed.items() if v is not None})
        else:
            left.append(node)
    return left


def _as_weight(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.ndim == 4:
        return tensor.to(dtype, memory_format=torch.channels_last)
    return tensor.to(dtype)


def _last_uses(nodes: list[Node], keep: set[str]) -> list[list[str]]:
    """For each node, the tensors that no later node reads: their memory can go."""
    left = Counter(name for node in nodes for name in node.inputs)
    released = []
    for node in nodes:
        left.subtract(node.inputs)
        names = {name for name in node.inputs if left[name] == 0 and name}
        names |= {name for name in node.outputs if left[name] == 0 and name}
        released.append(sorted(names - keep))
    return released
