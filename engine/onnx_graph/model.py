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
from engine.onnx_graph.fused_input import fuse_format, fuse_normalization
from engine.onnx_graph.image_format import ImageFormat, find_format
from engine.onnx_graph.inputs import GREY, NHWC, RGB
from engine.onnx_graph.metadata import read_normalization, read_note
from engine.onnx_graph.outputs import depends_on_inputs, keep_outputs, with_usable_outputs
from engine.onnx_graph.tensors import TORCH_DTYPES, free_name, tensor_spec, true_inputs
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
        image_format: how the file takes its image, where the inputs are R, G and B whatever that
            is; None where they are those of the file.
    """

    def __init__(
        self,
        path: Path,
        sha256: str,
        proto: onnx.ModelProto,
        trial: Trial | None = None,
        image_format: ImageFormat | None = None,
    ) -> None:
        self.path = path
        self.sha256 = sha256
        self.trial = trial or Trial()
        self.image_format = image_format
        self._proto = proto
        self.inputs = tuple(map(tensor_spec, true_inputs(proto)))
        self.outputs = tuple(map(tensor_spec, proto.graph.output))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        is_ours: bool = False,
        open_size: tuple[int, int] | None = None,
        layout: str | None = None,
    ) -> OnnxModel:
        """Read a model from an ONNX file, and try it out.

        A batch dimension that the file fixes is made dynamic where the graph allows it; one of 1
        that the graph does not allow to change stays, and batches hold one row. Outputs
        that no engine takes, such as strings, are left out.

        Args:
            path: the file.
            is_ours: whether this project has exported it, so that no trial is needed.
            open_size: height and width, in pixels, of the images that it is tried out with where
                it leaves them open.
            layout: where its channels are, one of `inputs.LAYOUTS`, if its user says so.

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
        trial = try_out(freed, sha256, fixed_batch, open_size, layout)
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
        """Height and width of the largest image that the first input takes, channels first.

        None where it takes no images, or any.
        """
        largest = self.inputs[0].largest
        if len(largest) != 3 or largest[1] is None or largest[2] is None:
            return None
        return largest[1], largest[2]

    @property
    def takes_bytes(self) -> bool:
        """Whether the one input takes pixels of 0 to 255, which nothing has to normalize."""
        return self.inputs[0].dtype == torch.uint8

    @property
    def takes_grey(self) -> bool:
        """Whether the file takes one channel, which is made of R, G and B here."""
        return self.image_format is not None and self.image_format.color == GREY

    def serialized(self) -> bytes:
        """The model as an engine reads it: one protobuf message with all weights inside."""
        content: bytes = self._proto.SerializeToString(deterministic=True)
        return content

    def with_input_size(self, height: int, width: int) -> OnnxModel:
        """The same model for images of one size, for a file that leaves the size open.

        Raises:
            EngineError: the file fixes another size, or its graph cannot take this one.
        """
        image = self.with_image_input()
        (spec,) = image.inputs
        shape = (3, height, width)
        if not spec.takes(shape):
            fixed = "x".join("any" if size is None else str(size) for size in spec.item_shape[1:])
            raise EngineError(
                f"{self.path} takes images of {fixed} (height x width), got {height}x{width}"
            )
        return image.with_limits([[(size, size) for size in shape]])

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
                in_graph = [*shape[1:], shape[0]] if spec.channels_last else shape
                sizes[spec.name] = in_graph
            inputs.append(
                replace(spec, shape=(spec.shape[0], *shape), limits=pairs if None in shape else ())
            )
        proto = set_input_sizes(self._proto, sizes, self.path) if sizes else self._proto
        return self._changed(proto, inputs=inputs)

    def with_output(self, name: str) -> OnnxModel:
        """The same model with one of its outputs, without the layers that only other outputs need.

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
        kept = keep_outputs(self._proto, [name])
        needed = {value.name for value in kept.graph.input}
        chosen = self._changed(kept, inputs=[it for it in self.inputs if it.name in needed])
        chosen.check_outputs()
        return chosen

    def with_image_input(self, layout: str | None = None, color: str | None = None) -> OnnxModel:
        """The same model for R, G and B of an image, whatever its file wants of one.

        Args:
            layout: that of the file, one of `inputs.LAYOUTS`; None for what its shape says.
            color: the order of its channels, one of `inputs.COLORS`; None for what the file
                says, else R, G, B.

        Returns:
            A model whose input is of logical shape (N, 3, H, W): normalized floats, or uint8 pixels
            where the file takes these. In memory it is N, H, W, C where `channels_last` says so.
            `image_format` says what the file wants.

        Raises:
            EngineError: the model does not take one image of 1 or 3 channels, or not as it was
                named.
        """
        if self.image_format is not None:
            return self
        if len(self.inputs) != 1:
            raise EngineError(
                f"{self.path} must take one image and nothing else; it takes "
                f"{', '.join(map(str, self.inputs))}"
            )
        (spec,) = self.inputs
        found = find_format(self._proto, spec, str(self.path), layout, color)
        proto, name = self._proto, spec.name
        batch, *row = spec.shape
        height, width = row[:2] if found.layout == NHWC else row[1:]
        if row[2 if found.layout == NHWC else 0] is None:
            shape = [height, width, 3] if found.layout == NHWC else [3, height, width]
            proto = set_input_sizes(proto, {name: shape}, self.path)
        keeps_order = found.layout == NHWC and found.color == RGB
        if not (found.is_usual or keeps_order):
            name = free_name(proto, f"{spec.name}_rgb")
            proto = fuse_format(proto, spec.name, name, found)
        comes_last = found.takes_bytes or (found.layout == NHWC and found.color != GREY)
        image = replace(
            spec,
            name=name,
            shape=(batch, 3, height, width),
            channels_last=comes_last,
            open_names=("", "", "height", "width"),
        )
        return self._changed(proto, inputs=[image], image_format=found)

    def with_uint8_input(self, normalization: Normalization | None) -> OnnxModel:
        """The same model with the normalization in front of its graph.

        Args:
            normalization: mean and std of R, G and B in units of 0..255; None for a model that
                takes uint8 pixels itself.

        Returns:
            A model whose input takes uint8 RGB pixels: logical shape (N, 3, H, W), in memory
            N, H, W, C, as image decoders leave them.

        Raises:
            EngineError: the model does not take one image of 1 or 3 channels, or it takes pixels
                that are not to be normalized.
        """
        image = self.with_image_input()
        image.check_normalization(normalization)
        if normalization is None or image.takes_bytes:
            return image
        (spec,) = image.inputs
        pixels = free_name(image.proto, f"{spec.name}_uint8")
        proto = fuse_normalization(
            image.proto, spec.name, pixels, normalization, channels_last=spec.channels_last
        )
        taken = replace(spec, name=pixels, dtype=torch.uint8, channels_last=True)
        return image._changed(proto, inputs=[taken])

    def check_normalization(self, normalization: Normalization | None) -> None:
        """Refuse what no model of this input could want.

        Raises:
            EngineError: pixels that the model takes as they are would be changed, floats would not
                be normalized, or one channel has three numbers.
        """
        image = self.with_image_input()
        (spec,) = image.inputs
        if image.takes_bytes:
            if normalization is not None and not normalization.is_identity:
                raise EngineError(
                    f"{self.path} takes uint8 pixels, of 0 to 255, as they are, so mean and std "
                    f"have no place: leave them out"
                )
        elif normalization is None:
            raise EngineError(f"{self.path} takes floats ({spec}), which need mean and std")
        elif image.takes_grey and not normalization.is_one_for_all:
            raise EngineError(
                f"{self.path} takes one channel, so mean and std are one number each, such as "
                f"--mean 0 --std 255 for pixels of 0 to 1"
            )

    def _changed(
        self,
        proto: onnx.ModelProto,
        inputs: Sequence[TensorSpec] | None = None,
        image_format: ImageFormat | None = None,
    ) -> OnnxModel:
        """The same model with another graph; the other attributes stay."""
        known = image_format or self.image_format
        changed = OnnxModel(self.path, self.sha256, proto, self.trial, known)
        # What a graph calls a dimension does not say what lies in it.
        changed.inputs = self.inputs if inputs is None else tuple(inputs)
        return changed

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
