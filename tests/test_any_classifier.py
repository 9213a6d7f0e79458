"""Models that take their image in another way than most: the same answers in both handlers."""

from __future__ import annotations

import logging
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto

from engine.resizing import Resizing
from interfaces.kinds import SIZE
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.handlers.outcomes import Scores
from service.handlers.table import create_handler
from tests.engines import CPU_ENGINES
from tests.image_models import FORMATS, GREY, IMAGE, RAW, SIDE, B, G, R, save_means
from tests.serving import refusal

HANDLERS = ("baseline", "pipeline")


def classified(handler: str, model: Path, image: bytes = IMAGE, **settings: Any) -> list[float]:
    """The scores of an image."""
    quickly = {"calibrate": "off", "engine": "onnxruntime", "output_activation": "none"}
    made = create_handler(handler, HandlerSettings(model=str(model), **{**quickly, **settings}))
    (outcome,) = made.classify([image], None)
    made.close()
    assert isinstance(outcome, Scores), outcome
    return [float(score) for score in outcome.probabilities]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("handler", HANDLERS)
def test_every_way_to_take_an_image_is_found_or_named(
    handler: str, name: str, tmp_path: Path
) -> None:
    model, settings, expected = FORMATS[name]
    scores = classified(handler, save_means(tmp_path / "m.onnx", **model), **settings)
    assert scores == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("engine", [name for name in CPU_ENGINES if name != "onnxruntime"])
@pytest.mark.parametrize("name", ["channels last, BGR", "grey, channels last", "grey bytes"])
def test_every_engine_runs_what_is_fused(engine: str, name: str, tmp_path: Path) -> None:
    model, settings, expected = FORMATS[name]
    saved = save_means(tmp_path / "m.onnx", **model)
    for handler in HANDLERS:
        scores = classified(handler, saved, engine=engine, **settings)
        assert scores == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_log_and_server_info_say_what_was_found(
    handler: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = save_means(tmp_path / "m.onnx", "nhwc", size="side", Image__BitmapPixelFormat="Bgr8")
    made = create_handler(
        handler, HandlerSettings(model=str(model), calibrate="off", input_size=(8, 6), **RAW)
    )
    settings = made.info().settings
    made.close()
    assert settings["input"] == "NHWC (its shape), BGR (its file)"
    assert settings["resize"] == "the whole image to 8x6, whatever its aspect ratio"
    taken = "'image' float32 N x side x side x 3"
    assert f"m.onnx takes images as NHWC (its shape), BGR (its file): {taken}" in caplog.messages
    assert f"m.onnx leaves the size of its images open ({taken}): 8x6 is used" in caplog.messages


@pytest.mark.parametrize("handler", HANDLERS)
def test_an_open_size_is_the_usual_one(
    handler: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = save_means(tmp_path / "m.onnx", size="side")
    assert classified(handler, model, **RAW) == pytest.approx([R, G, B])
    assert "224x224 is used, the usual one; --input-size names another" in caplog.text


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_grey_bytes_of_the_oldest_operator_set(engine: str, tmp_path: Path) -> None:
    proto = onnx.load(save_means(tmp_path / "m.onnx", channels=1, dtype=TensorProto.UINT8))
    proto.opset_import[0].version = 7
    onnx.save(proto, tmp_path / "m.onnx")
    scores = classified("baseline", tmp_path / "m.onnx", engine=engine)
    assert scores == pytest.approx([round(GREY), round(GREY) / 2], abs=0.05)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("handler", HANDLERS)
def test_sizes_below_1_are_open(handler: str, layout: str, tmp_path: Path) -> None:
    """Some exporters write -1 for any size, in outputs, too."""
    proto = onnx.load(save_means(tmp_path / "m.onnx", layout, size=-1))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = -1
    onnx.save(proto, tmp_path / "m.onnx")
    scores = classified(handler, tmp_path / "m.onnx", input_size=(8, 6), **RAW)
    assert scores == pytest.approx([R, G, B])


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_graph_may_have_the_names_of_what_is_put_before_it(handler: str, tmp_path: Path) -> None:
    proto = onnx.load(save_means(tmp_path / "m.onnx"))
    cast, mean, _ = proto.graph.node
    cast.output[0] = mean.input[0] = "image_rgb"
    mean.output[0] = proto.graph.node[2].input[0] = "image_rgb_uint8"
    onnx.save(proto, tmp_path / "m.onnx")
    scores = classified(handler, tmp_path / "m.onnx", color="bgr", **RAW)
    assert scores == pytest.approx([B, G, R])


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_file_that_says_nothing_of_its_sizes_needs_its_layout(
    handler: str, tmp_path: Path
) -> None:
    proto = onnx.load(save_means(tmp_path / "m.onnx", "nhwc", size="side"))
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "colours"
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ConfigurationError, match="it takes 'image' float32 N x side x side x col"):
        classified(handler, tmp_path / "m.onnx", **RAW)
    scores = classified(handler, tmp_path / "m.onnx", layout="nhwc", input_size=(8, 8), **RAW)
    assert scores == pytest.approx([R, G, B])


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_model_of_any_size_is_tried_out_with_the_one_that_it_is_given(
    handler: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs with no other, and mixes up the rows of a batch."""
    model = tmp_path / "mixing.onnx"
    onnx.save(
        onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        mixing (float[N,3,h,w] image) => (float[N,3] scores) {
            exact = Constant <value_ints = [0, 3, 8, 8]> ()
            same = Reshape (image, exact)
            all = ReduceMean <axes = [0], keepdims = 1> (same)
            apart = Sub (same, all)
            scores = ReduceMean <axes = [2, 3], keepdims = 0> (apart)
        }
        """),
        model,
    )
    with pytest.raises(ConfigurationError, match="rows depend on each other"):
        classified(handler, model, input_size=(8, 8), **RAW)
    assert "cannot be tried out" not in caplog.text


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_middle_of_an_image_that_keeps_its_aspect_ratio(handler: str, tmp_path: Path) -> None:
    """From left to right it becomes lighter, so that each part has another mean."""
    ramp = np.repeat(np.arange(0, 240, 6, dtype=np.uint8)[None, :, None], 20, axis=0)
    image = np.ascontiguousarray(np.broadcast_to(ramp, (20, 40, 3)))
    data = cv2.imencode(".png", image)[1].tobytes()
    whole, middle = Resizing(SIDE, SIDE)(image).mean(), Resizing(SIDE, SIDE, 10)(image).mean()
    right = Resizing(SIDE, SIDE, 10)(image)
    assert right[:, 0].mean() > Resizing(SIDE, SIDE)(image)[:, 0].mean()
    for model in (
        save_means(tmp_path / "floats.onnx"),
        save_means(tmp_path / "bytes.onnx", "nhwc", dtype=TensorProto.UINT8),
    ):
        settings = RAW if model.stem == "floats" else {}
        plain = classified(handler, model, data, **settings)
        assert plain == pytest.approx([whole] * 3, abs=0.01)
        kept = classified(handler, model, data, resize=10, crop=(SIDE, SIDE), **settings)
        assert kept == pytest.approx([middle] * 3, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "nhwc"}, "layout nhwc (as given) does not suit 'image' float32 N x 3 x 8 x 8"),
        ({"input_size": (9, 9)}, "takes images of 8x8 (height x width), got 9x9"),
        ({"resize": 6}, "resize 6 is less than the 8x8 pixels that are cut out of the middle"),
        ({"resize": 16, "crop": (12, 12)}, "the model takes images of 8x8, which is what is cut"),
    ],
)
@pytest.mark.parametrize("handler", HANDLERS)
def test_what_does_not_suit_the_model_is_refused_with_its_real_sizes(
    handler: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model = save_means(tmp_path / "m.onnx")
    with pytest.raises(ConfigurationError) as refused:
        classified(handler, model, **RAW, **settings)
    assert message in str(refused.value)


@pytest.mark.parametrize("handler", HANDLERS)
def test_mean_and_std_that_no_input_takes_are_refused(handler: str, tmp_path: Path) -> None:
    three = {"mean": (1.0, 2.0, 3.0), "std": (1.0, 1.0, 2.0)}
    model = save_means(tmp_path / "bytes.onnx", dtype=TensorProto.UINT8)
    with pytest.raises(ConfigurationError, match="takes uint8 pixels, of 0 to 255, as they are"):
        classified(handler, model, **three)
    model = save_means(tmp_path / "grey.onnx", channels=1)
    with pytest.raises(ConfigurationError, match="one channel, so mean and std are one number"):
        classified(handler, model, **three)
    with pytest.raises(ConfigurationError, match=r"one channel .*leave out --color bgr"):
        classified(handler, model, color="bgr", **RAW)


@pytest.mark.parametrize("handler", HANDLERS)
def test_mean_and_std_that_a_file_of_bytes_declares_are_a_warning(
    handler: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    declared = {"thriftpipe__mean": "127.5", "thriftpipe__std": "127.5"}
    model = save_means(tmp_path / "m.onnx", dtype=TensorProto.UINT8, **declared)
    assert classified(handler, model) == pytest.approx([R, G, B])
    warnings = [it.getMessage() for it in caplog.records if it.levelname == "WARNING"]
    assert sum("mean 0 and std 1 are not what " in text for text in warnings) == 1


def test_grey_images_without_mean_and_std_are_of_0_to_1(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_means(tmp_path / "m.onnx", channels=1)
    assert classified("pipeline", model) == pytest.approx([GREY / 255, GREY / 510], abs=1e-3)
    assert "it gets pixels of 0 to 1 (mean 0, std 255)" in caplog.text


def test_options_that_say_nothing_here_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text("")
    for words, told in (
        (("--crop", "224"), "--crop is the middle of an image that --resize has resized"),
        (("--config", str(config), "--resize", "256"), "--resize: the file of --config says"),
        (("--config", str(config), "--input-size", "8"), "--input-size: the file of --config"),
    ):
        assert told in refusal("--handler", "pipeline", *words)
    for size in ("0x3", "9000"):
        with pytest.raises(ArgumentTypeError, match="height x width, each 1 to 8192"):
            SIZE(size)
    assert (SIZE("224"), SIZE("64x32")) == ((224, 224), (64, 32))
    with pytest.raises(ConfigurationError, match=r"decoded on the GPU .* whatever their aspect"):
        create_handler(
            "pipeline",
            HandlerSettings(model=str(save_means(tmp_path / "m.onnx")), decode="gpu", resize=9),
        )


def test_a_file_says_layout_and_order_itself(tmp_path: Path) -> None:
    model = save_means(tmp_path / "m.onnx", "nhwc", size="side")
    config = tmp_path / "own.toml"
    config.write_text(f"""
        [all]
        backend = "S[DecodeMat,ResizeCropMat,cvtColorMat,Mat2Tensor,TensorrtTensor]"
        resize_shorter = 10
        resize_h = 8
        resize_w = 8
        model = "{model}"
        max = "2x3x8x8"
        mean = "0"
        std = "1"
        "model::layout" = "nhwc"
        "model::color" = "bgr"
    """)
    settings = HandlerSettings(config=str(config), calibrate="off", output_activation="none")
    made = create_handler("pipeline", settings)
    (outcome,) = made.classify([IMAGE], None)
    facts = made.info().settings
    made.close()
    assert isinstance(outcome, Scores)
    assert outcome.probabilities == pytest.approx([B, G, R])
    assert facts["input"] == "NHWC (as given), BGR (as given)"
    assert facts["resize"] == "as the configuration says"
