"""An ONNX classifier: its identity, its tensors, and the same model with mean and std fused in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import onnx
import torch

from engine.errors import EngineError
from engine.normalization import Normalization
from engine.onnx_graph.dynamic_batch import make_batch_dynamic, set_input_sizes
from engine.onnx_graph.file import read_onnx
from engine.onnx_graph.final_activation import activation_in_graph, gives_best_only
from engine.onnx_graph.fused_normalization import fuse_normalization
from engine.onnx_graph.metadata import read_normalization, read_note
from engine.onnx_graph.outputs import depends_on_inputs, keep_outputs, with_usable_outputs
from engine.onnx_graph.tensors import TORCH_DTYPES, tensor_spec, true_inputs
from engine.onnx_graph.trial import Trial
from engine.onnx_graph.trial_run import try_out
from engine.tensor_spec import TensorSpec
from interfaces.names import closest_name_hint


class OnnxModel:
    """An ONNX model in memory.

    Attributes:
        path: the file it was read from.
        sha256: of that file (and of its external data), also after mean and std were fused in:
            it says which weights run.
        inputs: what the graph takes, the batch dimension first.
        outputs: what the graph gives.
        trial: what the model did with made-up inputs; empty for one that this project
            has exported.
    """

    def __init__(
        self, path: Path, sha256: str, proto: onnx.ModelProto, trial: Trial | None = None
    ) -> None:
        self.path = path
        self.sha256 = sha256
        self.trial = trial or Trial()
        self._proto = proto
        self.inputs = tuple(map(tensor_spec, true_inputs(proto)))
        self.outputs = tuple(map(tensor_spec, proto.graph.output))

    @classmethod
    def load(cls, path: str | Path, *, is_ours: bool = False) -> OnnxModel:
        """Read a model from an ONNX file, and try it out.

        A batch dimension that the file fixes is made dynamic where the graph allows it; one of 1
        that the graph does not allow to change stays, and batches hold one row. Outputs
        that no engine takes, such as strings, are left out.

        Args:
            path: the file.
            is_ours: whether this project has exported it, so that no trial is needed.

        Raises:
            EngineError: no such file, not an ONNX model, external data missing, tensors of a type
                that no engine takes, or one output with a flaw: see `check_outputs`.
        """
        path = Path(path)
        proto, sha256 = read_onnx(path)
        proto = with_usable_outputs(proto, TORCH_DTYPES.keys(), path)
        freed, fixed_batch = make_batch_dynamic(proto, path)
        if is_ours:
            return cls(path, sha256, freed)
        trial = try_out(freed, sha256, fixed_batch)
        model = cls(path, sha256, proto if trial.only_alone else freed, trial)
        if len(model.outputs) == 1:
            model.check_outputs()
        return model

    @property
    def name(self) -> str:
        """The name of the model's file."""
        return self.path.name

    @property
    def proto(self) -> onnx.ModelProto:
        """The graph. It is shared: do not change it."""
        return self._proto

    @cached_property
    def declared_normalization(self) -> Normalization | None:
        """The normalization that the file's metadata declares, or None."""
        return read_normalization(self._proto, self.path)

    @property
    def note(self) -> str:
        """What the file's metadata says that users of its answers have to know, or ""."""
        return read_note(self._proto)

    def check_outputs(self) -> None:
        """Refuse outputs that are not a row for each input, whatever is beside it in a batch.

        Raises:
            EngineError: an output does not depend on the inputs, has no batch dimension, mixes up
                the rows of a batch, is another one each time, or needs a fixed batch.
        """
        for spec in self.outputs:
            if not depends_on_inputs(self._proto, spec.name):
                raise EngineError(
                    f"{self.path}: output {spec} does not depend on the image: it is "
                    f"the same for all; name another output, or export the model again"
                )
            if flaw := self.trial.flaws.get(spec.name):
                raise EngineError(f"{self.path}: {flaw}")

    @cached_property
    def final_activation(self) -> str:
        """Of which activation the first output is that, or "" for none.

        "Softmax", "Sigmoid" or "HardSigmoid", as the graph says; or "Softmax", as the values say
        that a trial gave: whatever has made them, they are never negative and add up to 1.

        Raises:
            EngineError: the Softmax does not run over the classes of one image.
        """
        output = self.outputs[0]
        found, axes = activation_in_graph(self._proto, output.name, len(output.shape))
        self._check_axes(axes)
        values = self.trial.ranges.get(output.name)
        return found or ("Softmax" if values and values.is_softmax else "")

    @property
    def outputs_probabilities(self) -> bool:
        """True where the first output is that of a softmax or a sigmoid."""
        return bool(self.final_activation)

    @property
    def num_scores(self) -> int:
        """How many scores the first output has for an image.

        Raises:
            EngineError: the output is not one row of scores per image, or has the best ones only.
        """
        if (size := self.outputs[0].row_size) is None:
            raise EngineError(
                f"{self.path} is not a classifier: its output {self.outputs[0]} should "
                f"be floating-point scores of shape N x classes"
            )
        if gives_best_only(self._proto, self.outputs[0].name):
            raise EngineError(
                f"{self.path}: its output {self.outputs[0]} is that of a TopK, the best scores "
                f"without their classes; name the output before it, or export the model without it"
            )
        return size

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width of the largest image that the first input takes.

        None where it takes no images, or any.
        """
        largest = self.inputs[0].largest
        if len(largest) != 3 or largest[1] is None or largest[2] is None:
            return None
        return largest[1], largest[2]

    def serialized(self) -> bytes:
        """The model as an engine reads it: one protobuf message with all weights inside."""
        content: bytes = self._proto.SerializeToString(deterministic=True)
        return content

    def with_input_size(self, height: int, width: int) -> OnnxModel:
        """The same model for images of one size, for a file that leaves the size open.

        Raises:
            EngineError: the file fixes another size, or its graph cannot take this one.
        """
        spec, shape = self.image_input(), (3, height, width)
        if not spec.takes(shape):
            raise EngineError(
                f"{self.path} takes images of {spec.rows_text}, got 3x{height}x{width}"
            )
        return self.with_limits([[(size, size) for size in shape]])

    def with_limits(self, limits: Sequence[Sequence[tuple[int, int]]]) -> OnnxModel:
        """The same model for rows of certain shapes, for a file that leaves sizes open.

        Args:
            limits: for each input the smallest and largest size of each dimension of a row. Where
                both are the same, the size becomes fixed; those that the file fixes stay.

        Raises:
            EngineError: its graph cannot take rows of such a shape.
        """
        inputs, sizes = [], {}
        for spec, of_input in zip(self.inputs, limits, strict=True):
            pairs = tuple(
                pair if size is None else (size, size)
                for size, pair in zip(spec.item_shape, of_input, strict=True)
            )
            shape = [low if low == high else None for low, high in pairs]
            if shape != [*spec.item_shape]:
                sizes[spec.name] = shape
            inputs.append(
                replace(spec, shape=(spec.shape[0], *shape), limits=pairs if None in shape else ())
            )
        proto = set_input_sizes(self._proto, sizes, self.path) if sizes else self._proto
        limited = OnnxModel(self.path, self.sha256, proto, self.trial)
        limited.inputs = tuple(inputs)
        return limited

    def with_output(self, name: str) -> OnnxModel:
        """The same model with one of its outputs, and without what only the others need.

        Raises:
            EngineError: there is no such output, or it has a flaw: see `check_outputs`.
        """
        names = [spec.name for spec in self.outputs]
        if name not in names:
            raise EngineError(
                f"{self.path} has no output {name!r}{closest_name_hint(name, names)} "
                f"It has {', '.join(map(str, self.outputs))}"
            )
        if len(names) == 1:
            return self
        chosen = OnnxModel(self.path, self.sha256, keep_outputs(self._proto, [name]), self.trial)
        chosen.check_outputs()
        return chosen

    def with_uint8_input(self, normalization: Normalization) -> OnnxModel:
        """The same model with the normalization in front of its graph.

        Args:
            normalization: mean and std of R, G and B in units of 0..255.

        Returns:
            A model whose input takes uint8 RGB pixels: logical shape (N, 3, H, W), in memory
            N, H, W, C, as image decoders leave them.

        Raises:
            EngineError: the model does not take one floating-point image of 3 channels.
        """
        spec = self.image_input()
        pixels = f"{spec.name}_uint8"
        proto = fuse_normalization(self._proto, spec.name, pixels, normalization)
        fused = OnnxModel(self.path, self.sha256, proto, self.trial)
        fused.inputs = (replace(spec, name=pixels, dtype=torch.uint8, channels_last=True),)
        return fused

    def image_input(self) -> TensorSpec:
        """The one input, which takes floating-point images of 3 channels.

        Raises:
            EngineError: the model takes something else, or more.
        """
        spec = self.inputs[0]
        is_image = len(spec.shape) == 4 and spec.shape[1] == 3 and spec.dtype.is_floating_point
        if len(self.inputs) != 1 or not is_image or spec.channels_last:
            is_last = len(spec.shape) == 4 and spec.shape[3] == 3
            hint = "; export it with the channels first" if is_last else ""
            raise EngineError(
                f"{self.path} must take one floating-point image of shape N x 3 x height x width; "
                f"it takes {', '.join(map(str, self.inputs))}{hint}"
            )
        return spec

    def _check_axes(self, axes: list[int]) -> None:
        """Refuse a Softmax whose sum is not that of one image's classes."""
        output = self.outputs[0]
        is_over_classes = 0 not in axes and any(output.shape[axis] != 1 for axis in axes)
        if axes and not is_over_classes and output.row_size != 1:
            raise EngineError(
                f"{self.path}: the Softmax before its output {output} runs over axis "
                f"{', '.join(map(str, axes))}, which is not that of the classes; export it again "
                f"with a softmax over the classes, or without any"
            )
