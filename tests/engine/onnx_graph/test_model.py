from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from engine.errors import EngineError
from engine.normalization import IMAGENET_NORMALIZATION, Normalization
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine

ProtoFactory = Callable[..., onnx.ModelProto]


def saved(proto: onnx.ModelProto, path: Path) -> OnnxModel:
    onnx.save(proto, path)
    return OnnxModel.load(path)


def scores(model: OnnxModel, images: torch.Tensor) -> torch.Tensor:
    options = EngineOptions(max_batch_size=len(images))
    engine = load_engine(choose_engine("onnxruntime"), model, options)
    return engine.create_context().run([(images,)])[0]


def test_a_model_says_what_it_is(small_file: Path) -> None:
    model = OnnxModel.load(small_file)
    assert model.name == "small.onnx"
    assert model.sha256 == hashlib.sha256(small_file.read_bytes()).hexdigest()
    assert [(s.name, s.dtype, s.shape) for s in model.inputs] == [
        ("image", torch.float32, (None, 3, 8, 8))
    ]
    assert [(s.name, s.shape) for s in model.outputs] == [("scores", (None, 5))]
    assert model.num_scores == 5
    assert model.input_size == (8, 8)
    assert model.outputs_probabilities
    assert model.declared_normalization is None


def test_logits_are_not_probabilities(tmp_path: Path, small_proto: ProtoFactory) -> None:
    assert not saved(small_proto(last="Identity"), tmp_path / "m.onnx").outputs_probabilities


def test_softmax_counts_through_a_flatten(tmp_path: Path, small_proto: ProtoFactory) -> None:
    proto = small_proto()
    proto.graph.node[-1].output[0] = "probabilities"
    proto.graph.node.append(helper.make_node("Flatten", ["probabilities"], ["scores"]))
    assert saved(proto, tmp_path / "m.onnx").outputs_probabilities


class TestFilesThatAreNoModel:
    def test_a_missing_file_suggests_the_closest_one(self, small_file: Path) -> None:
        wrong = small_file.with_name("smal.onnx")
        with pytest.raises(
            EngineError, match=r"no model: there is no file .*; did you mean .*small\.onnx\?"
        ):
            OnnxModel.load(wrong)

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"there is no folder .*nowhere"):
            OnnxModel.load(tmp_path / "nowhere" / "m.onnx")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="is a folder"):
            OnnxModel.load(tmp_path)

    @pytest.mark.parametrize(
        "content", [b"", b"\xff\xd8\xff\xe0 JPEG", b"\x08\x08 not a message", b"\x08\x08"]
    )
    def test_another_kind_of_file(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(content)
        with pytest.raises(EngineError, match="is not an ONNX model") as caught:
            OnnxModel.load(path)
        assert "\n" not in str(caught.value)

    def test_a_truncated_model(self, small_file: Path) -> None:
        content = small_file.read_bytes()
        small_file.write_bytes(content[: len(content) // 2])
        with pytest.raises(EngineError, match=r"is not an? (valid )?ONNX model"):
            OnnxModel.load(small_file)

    def test_an_invalid_graph(self, tmp_path: Path, small_proto: ProtoFactory) -> None:
        proto = small_proto()
        proto.graph.node[0].input[0] = "nothing"
        with pytest.raises(EngineError, match="is not a valid ONNX model"):
            saved(proto, tmp_path / "m.onnx")

    def test_an_ancient_operator_set(self, tmp_path: Path, small_proto: ProtoFactory) -> None:
        with pytest.raises(EngineError, match="uses opset 6; export it again"):
            saved(small_proto(opset=6), tmp_path / "m.onnx")

    def test_an_element_type_that_no_engine_takes(
        self, tmp_path: Path, small_proto: ProtoFactory
    ) -> None:
        proto = small_proto()
        proto.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
        with pytest.raises(EngineError, match="'scores' is a tensor of type STRING"):
            saved(proto, tmp_path / "m.onnx")


class TestExternalData:
    @pytest.fixture
    def path(self, tmp_path: Path, small_proto: ProtoFactory) -> Path:
        path = tmp_path / "m.onnx"
        onnx.save(
            small_proto(), path, save_as_external_data=True, location="m.data", size_threshold=0
        )
        return path

    def test_weights_beside_the_file_are_read(self, path: Path, small_model: OnnxModel) -> None:
        images = torch.rand(2, 3, 8, 8)
        assert torch.equal(scores(OnnxModel.load(path), images), scores(small_model, images))

    def test_they_are_part_of_the_identity(self, path: Path) -> None:
        before = OnnxModel.load(path).sha256
        data = bytearray(path.with_name("m.data").read_bytes())
        data[0] ^= 1
        path.with_name("m.data").write_bytes(data)
        assert OnnxModel.load(path).sha256 != before

    @pytest.mark.parametrize("kind", ["path", "link"])
    def test_they_stay_in_the_models_folder(self, path: Path, kind: str) -> None:
        outside = path.parent.parent / f"{path.parent.name}.data"
        path.with_name("m.data").rename(outside)
        if kind == "link":
            path.with_name("m.data").symlink_to(outside)
        else:
            proto = onnx.load(path, load_external_data=False)
            for tensor in proto.graph.initializer:
                tensor.external_data[0].value = f"../{outside.name}"
            path.write_bytes(proto.SerializeToString())
        with pytest.raises(EngineError, match="leads out of its folder"):
            OnnxModel.load(path)

    def test_their_file_is_named_when_it_is_missing(self, path: Path) -> None:
        path.with_name("m.data").unlink()
        with pytest.raises(EngineError, match=r"keeps its weights in m\.data, which is not beside"):
            OnnxModel.load(path)


class TestBatchDimension:
    @pytest.mark.parametrize("batch", [1, 4])
    def test_a_fixed_batch_is_freed(
        self, tmp_path: Path, batch: int, small_proto: ProtoFactory
    ) -> None:
        """A file made for one batch size runs others, with the same results."""
        fixed = saved(small_proto(batch=batch), tmp_path / "fixed.onnx")
        free = saved(small_proto(), tmp_path / "free.onnx")
        images = torch.rand(3, 3, 8, 8)
        assert fixed.inputs[0].shape == (None, 3, 8, 8)
        assert fixed.outputs[0].shape == (None, 5)
        assert torch.equal(scores(fixed, images), scores(free, images))

    def test_a_batch_that_is_built_into_the_graph_is_an_error(
        self, tmp_path: Path, small_proto: ProtoFactory
    ) -> None:
        with pytest.raises(EngineError, match=r"batches of exactly 4 .* dynamic batch dimension"):
            saved(small_proto(batch=4, reshape_to=[4, 4]), tmp_path / "m.onnx")

    def test_one_row_that_is_built_into_the_graph_stays(
        self, tmp_path: Path, small_proto: ProtoFactory
    ) -> None:
        fixed = saved(small_proto(batch=1, reshape_to=[1, 4]), tmp_path / "fixed.onnx")
        free = saved(small_proto(), tmp_path / "free.onnx")
        assert fixed.inputs[0].shape == (1, 3, 8, 8)
        image = torch.rand(1, 3, 8, 8)
        assert torch.equal(scores(fixed, image), scores(free, image))

    def test_rows_that_depend_on_each_other_are_an_error(
        self, tmp_path: Path, small_proto: ProtoFactory
    ) -> None:
        """A graph that takes two rows but mixes them up is not run."""
        proto = small_proto(batch=1)
        proto.graph.node[-1].CopyFrom(
            helper.make_node("Softmax", ["logits"], ["scores"], "last", axis=0)
        )
        with pytest.raises(EngineError, match="rows depend on each other"):
            saved(proto, tmp_path / "m.onnx")


class TestInputSize:
    def test_an_open_size_is_fixed_on_demand(
        self, tmp_path: Path, small_model: OnnxModel, small_proto: ProtoFactory
    ) -> None:
        model = saved(small_proto(size="any"), tmp_path / "m.onnx")
        assert model.input_size is None
        sized = model.with_input_size(8, 8)
        assert sized.input_size == (8, 8)
        images = torch.rand(2, 3, 8, 8)
        assert torch.equal(scores(sized, images), scores(small_model, images))

    def test_engines_do_not_load_an_open_size(
        self, tmp_path: Path, small_proto: ProtoFactory
    ) -> None:
        model = saved(small_proto(size="any"), tmp_path / "m.onnx")
        with pytest.raises(
            EngineError, match="'image' float32 N x 3 x any x any has no fixed size"
        ):
            load_engine(choose_engine("auto"), model, EngineOptions())

    def test_a_size_that_the_file_fixes_stays(self, small_model: OnnxModel) -> None:
        limited = small_model.with_limits([[(3, 3), (4, 16), (4, 16)]])
        assert limited.proto is small_model.proto
        assert limited.inputs[0].item_shape == limited.inputs[0].largest == (3, 8, 8)
        with pytest.raises(EngineError, match=r"takes images of 8x8 \(height x width\), got 9x9"):
            small_model.with_input_size(9, 9)

    def test_a_size_that_the_graph_cannot_take(
        self, tmp_path: Path, small_proto: ProtoFactory
    ) -> None:
        proto = small_proto(size="any")
        bias = numpy_helper.from_array(np.zeros((1, 4, 224, 224), np.float32), "bias")
        proto.graph.initializer.append(bias)
        proto.graph.node.insert(1, helper.make_node("Add", ["maps", "bias"], ["biased"]))
        proto.graph.node[2].input[0] = "biased"
        model = saved(proto, tmp_path / "m.onnx")
        with pytest.raises(EngineError, match="cannot take rows of 3x8x8: "):
            model.with_limits([[(3, 3), (8, 8), (8, 8)]])


def test_an_output_that_is_a_map_is_no_classifier(
    tmp_path: Path, small_proto: ProtoFactory
) -> None:
    proto = small_proto()
    proto.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["batch", 4, 8, 8])
    )
    with pytest.raises(EngineError, match=r"not a classifier: .*'maps' float32 N x 4 x 8 x 8"):
        _ = saved(proto, tmp_path / "m.onnx").num_scores


class TestFusedNormalization:
    @pytest.mark.parametrize(
        "normalization", [IMAGENET_NORMALIZATION, Normalization((126.99,), (128.01,))]
    )
    def test_uint8_pixels_give_the_scores_of_normalized_ones(
        self, small_model: OnnxModel, normalization: Normalization
    ) -> None:
        pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in normalization.per_channel())
        fused = small_model.with_uint8_input(normalization)
        expected = scores(small_model, (pixels.float() - mean) / std)
        torch.testing.assert_close(scores(fused, pixels), expected, rtol=1e-4, atol=1e-5)

    def test_the_input_is_one_that_image_decoders_fill(self, small_model: OnnxModel) -> None:
        """Logical N, C, H, W; in memory N, H, W, C, and so in the graph."""
        fused = small_model.with_uint8_input(IMAGENET_NORMALIZATION)
        (spec,) = fused.inputs
        assert (spec.dtype, spec.shape, spec.channels_last) == (torch.uint8, (None, 3, 8, 8), True)
        (value,) = fused.proto.graph.input
        assert [d.dim_value for d in value.type.tensor_type.shape.dim][1:] == [8, 8, 3]
        onnx.checker.check_model(fused.proto, full_check=True)

    def test_identity_and_original_stay_as_they_are(self, small_model: OnnxModel) -> None:
        before = small_model.serialized()
        fused = small_model.with_uint8_input(IMAGENET_NORMALIZATION)
        assert small_model.serialized() == before != fused.serialized()
        assert (fused.sha256, fused.path) == (small_model.sha256, small_model.path)
        assert (fused.num_scores, fused.input_size) == (5, (8, 8))
        assert fused.outputs_probabilities

    def test_half_precision_models_take_it_too(
        self, tmp_path: Path, small_proto: ProtoFactory
    ) -> None:
        proto = small_proto()
        for tensor in proto.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                half = numpy_helper.to_array(tensor).astype(np.float16)
                tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
        fused = saved(proto, tmp_path / "m.onnx").with_uint8_input(IMAGENET_NORMALIZATION)
        pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
        assert scores(fused, pixels).sum(dim=1) == pytest.approx([1, 1], abs=1e-2)

    def test_only_once(self, small_model: OnnxModel) -> None:
        fused = small_model.with_uint8_input(IMAGENET_NORMALIZATION)
        with pytest.raises(EngineError, match="takes uint8 pixels, of 0 to 255, as they are"):
            fused.with_uint8_input(IMAGENET_NORMALIZATION)

    def test_one_channel_takes_one_number(self, tmp_path: Path, small_proto: ProtoFactory) -> None:
        proto = small_proto()
        proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
        kernel = proto.graph.initializer[0]
        kernel.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(kernel)[:, :1], kernel.name)
        )
        model = saved(proto, tmp_path / "m.onnx")
        with pytest.raises(EngineError, match="takes one channel, so mean and std are one number"):
            model.with_uint8_input(IMAGENET_NORMALIZATION)


def test_an_engine_file_is_told_from_a_model(tmp_path: Path) -> None:
    path = tmp_path / "resnet50.trt"
    path.write_bytes(b"ftrt engine")
    with pytest.raises(EngineError, match="the ONNX file is model, and this file model::cache"):
        OnnxModel.load(path)
