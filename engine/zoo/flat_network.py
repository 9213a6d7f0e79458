"""A torch network with its outputs in a row, and their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from engine.errors import EngineError
from interfaces.error_text import in_one_line


class Flat(nn.Module):
    """A network whose outputs, in whichever containers they come, are a tuple of tensors.

    Args:
        network: it gives a tensor, or tuples, lists and dictionaries of tensors.
        examples: what it is asked with to learn the names of its outputs.

    Attributes:
        names: of the outputs: keys of dictionaries, else "output" or "output_0" and so on.

    Raises:
        EngineError: the network raises, or gives something else.
    """

    def __init__(self, network: nn.Module, examples: Sequence[Tensor]) -> None:
        super().__init__()
        self.network = network
        found = self._named_outputs(examples)
        lone = len(found) == 1
        self.names = tuple(
            name or ("output" if lone else f"output_{index}")
            for index, (name, _) in enumerate(found)
        )
        rows = len(examples[0])
        for name, (_, tensor) in zip(self.names, found, strict=True):
            if not tensor.ndim or len(tensor) != rows:
                shape = "x".join(map(str, tensor.shape)) or "a lone number"
                raise EngineError(
                    f"output {name!r} of a batch of {rows} is {shape}; expected {rows} rows: the "
                    f"first dimension of inputs and outputs is the batch"
                )

    def outputs(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What `forward` gives, without gradients; EngineError where the network raises."""
        return tuple(tensor for _, tensor in self._named_outputs(inputs))

    def _named_outputs(self, inputs: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
        try:
            with torch.inference_mode():
                return list(_named_tensors("", self.network(*inputs)))
        except EngineError:
            raise
        except Exception as error:
            shapes = ", ".join("x".join(map(str, one.shape)) for one in inputs)
            raise EngineError(
                f"the network does not run for inputs of {shapes}: {in_one_line(error)}"
            ) from error

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All outputs, in the order of `names`."""
        return tuple(tensor for _, tensor in _named_tensors("", self.network(*inputs)))


def _named_tensors(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named_tensors(str(key), inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _named_tensors("", inner)
    else:
        raise EngineError(
            f"the network gives a {type(value).__name__}; expected tensors, or tuples, lists and "
            f"dictionaries of them"
        )
