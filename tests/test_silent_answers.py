"""Answers that would be wrong without a word: they are right, refused, or warned of."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from engine.errors import EngineError
from engine.normalization import Normalization
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import choose_engine, load_engine
from engine.scoring import Scoring, scoring_of
from idl import inference
from pipeline.commands.dispatch import main as pipeline
from tests.engines import CPU_ENGINES
from tests.serving import connect, refusal, service_here

# The means of an image's channels, divided by 100.
MEANS = """
pooled = GlobalAveragePool (image)
hundredth = Constant <value_float = 0.01> ()
scaled = Mul (pooled, hundredth)
scores = Flatten (scaled)
"""
# A convolution before: no scaling of one's own, and scores of either sign.
NET = """
kernel = Constant <value = float[3,3,1,1] {1, -1, 0, 0, 1, -1, -1, 0, 1}> ()
maps = Conv (image, kernel)
pooled = GlobalAveragePool (maps)
scores = Flatten (pooled)
"""
CONFIG = """
[decode]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor{}]"
resize_h = 8
resize_w = 8
next = "model"

[model]
backend = "TensorrtTensor"
model = "{}"
"""
BACKENDS = """
import torch
from pipeline.backends.interface import ItemBackend
from pipeline.backends.registry import register

@register("TestRetype")
class Retype(ItemBackend):
    def process(self, data):
        floats = data.float()
        return {
            10: lambda: floats / 255,
            20: lambda: floats * float("nan"),
            30: lambda: floats + 300,
            40: lambda: (floats - 123) / 58,
            50: lambda: floats + 0.75,
            60: lambda: data.to(torch.bfloat16),
            70: lambda: data.int(),
            80: lambda: data.int() - 100,
            90: lambda: floats * 0 + 0.3,
            100: lambda: floats / 5 + 0.7,
            110: lambda: floats / 110,
        }.get(int(data[0, 0, 0, 0]), lambda: data)()
"""


HANDLERS = ("baseline", "pipeline")


def image(level: int) -> bytes:
    return cv2.imencode(".png", np.full((8, 8, 3), level, np.uint8))[1].tobytes()


def save(
    path: Path,
    nodes: str = MEANS,
    output: str = "float[N,3] scores",
    takes: str = "float[N,3,8,8] image",
    **metadata: str,
) -> Path:
    """A model of these nodes, in ONNX's own text format."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> net ({takes}) => ({output}) {{ {nodes} }}'
    )
    onnx.helper.set_model_props(
        proto, {key.replace("_", "."): value for key, value in metadata.items()}
    )
    onnx.save(proto, path)
    return path


def score(port: int, data: bytes) -> float:
    """The best class's."""
    client = connect(port)
    result = client.infer_batch(inference.InferenceParams(uuid="1", data=data))
    client.close()
    return float(result.score)


def refuse_late(folder: Path, *arguments: str) -> None:
    """Start a server that loads its model and has too few labels for it, so that it ends then."""
    labels = folder / "labels.txt"
    labels.write_text("only one")
    assert "has 1 labels" in refusal(*arguments, "--labels", str(labels))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [it.getMessage() for it in caplog.records if it.levelname == "WARNING"]


def test_other_types_are_pixels_of_0_to_255_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cast to bytes would make 0, or 44 of 300, of what a backend of one's own gives."""
    config, backends = tmp_path / "c.toml", tmp_path / "b.py"
    model = save(tmp_path / "m.onnx")
    config.write_text(
        CONFIG.format(",TestRetype", model)
        + 'mean = "0"\nstd = "1"\nmax = 4\noutput_activation = "none"\n'
    )
    backends.write_text(BACKENDS)
    levels = (5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110)
    arguments = ("--handler", "pipeline", "--config", str(config), "--backends", str(backends))
    with service_here(*arguments) as port:
        client = connect(port)
        results = client.infer_images(
            [inference.InferenceParams(uuid=str(it), data=image(it)) for it in levels],
            inference.InferOptions(top_k=1),
        )
        client.close()
    by_id = {
        record.getMessage().rpartition(" ")[2]: str(record.exc_info[1])
        for record in caplog.records
        if record.exc_info
    }
    by_level = dict(zip(levels, results, strict=True))
    scores = {it: result.top_k[0].score for it, result in by_level.items() if not result.error}
    assert {it: round(score, 3) for it, score in scores.items()} == {
        5: 0.05,
        60: 0.6,
        70: 0.7,
        110: 0.01,
    }
    told = {it: by_id[result.error.error_id] for it, result in by_level.items() if result.error}
    assert all("takes whole numbers from 0 to 255, got " in text for text in told.values())
    for level, value in {10: "0.03922", 40: "-1.431", 50: "50.75", 90: "0.3", 100: "20.7"}.items():
        assert f"float32 values with fractions, from {value} to {value}: after a" in told[level]
        assert "resize in floats use .round().to(torch.uint8); if they are" in told[level]
    assert "float32 values that are not finite" in told[20]
    assert "float32 values from 330 to 330: clamp them" in told[30]
    assert "int32 values from -20 to -20: clamp them" in told[80]


class TestNormalization:
    """Whose mean and std a model's pixels get."""

    def test_a_model_that_is_set_into_the_template_brings_its_own(self, tmp_path: Path) -> None:
        model = save(tmp_path / "m.onnx", thriftpipe_mean="100", thriftpipe_std="50")
        arguments = ("--handler", "pipeline", "--output-activation", "none")
        with service_here(*arguments, "--set", f"resnet50.model={model}") as port:
            assert score(port, image(200)) == pytest.approx((200 - 100) / 50 / 100)

    @pytest.mark.parametrize("how", ["file", "file with --set", "template", "baseline"])
    def test_values_that_are_not_the_models_are_a_warning(
        self, how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = save(tmp_path / "m.onnx", thriftpipe_mean="100", thriftpipe_std="50")
        config = tmp_path / "c.toml"
        other = "efficientnet_lite0" if how == "file with --set" else model
        config.write_text(CONFIG.format("", other) + 'mean = "120"\nstd = "60"\n')
        arguments = {
            "file": ("--config", str(config)),
            "file with --set": ("--config", str(config), "--set", f"model.model={model}"),
            "template": ("--model", str(model), "--mean", "120", "--std", "60"),
            "baseline": ("--model", str(model), "--mean", "120", "--std", "60"),
        }[how]
        handler = "baseline" if how == "baseline" else "pipeline"
        refuse_late(tmp_path, "--handler", handler, *arguments)
        (told,) = (text for text in warnings(caplog) if "declares" in text)
        assert "mean 120 and std 60 are not what " in told
        assert "m.onnx declares: mean 100 and std 50" in told

    def test_another_models_values_for_a_packaged_one_are_a_warning_of_check(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = tmp_path / "c.toml"
        imagenet = 'mean = "123.675, 116.28, 103.53"\nstd = "58.395, 57.12, 57.375"\n'
        config.write_text(CONFIG.format("", "efficientnet_lite0") + imagenet)
        assert pipeline(["check", str(config)]) == 0
        (told,) = (it for it in capsys.readouterr().out.splitlines() if "warning" in it)
        assert "efficientnet_lite0 declares: mean 126.99 and std 128.01" in told
        config.write_text(CONFIG.format("", "resnet50") + imagenet)
        assert pipeline(["check", str(config)]) == 0
        assert "warning" not in capsys.readouterr().out

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_one_of_mean_and_std_in_the_file_is_an_error_with_a_way_out(
        self, handler: str, tmp_path: Path
    ) -> None:
        model = save(tmp_path / "m.onnx", thriftpipe_std="50")
        arguments = ("--handler", handler, "--model", str(model))
        line = refusal(*arguments)
        assert "m.onnx: its metadata has thriftpipe.std without thriftpipe.mean" in line
        refuse_late(tmp_path, *arguments, "--mean", "0", "--std", "1")

    def test_one_of_mean_and_std_in_the_file_is_told_of_a_configuration_without(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = tmp_path / "c.toml"
        model = save(tmp_path / "m.onnx", NET, thriftpipe_mean="50")
        config.write_text(CONFIG.format("", model))
        refuse_late(tmp_path, "--handler", "pipeline", "--config", str(config))
        assert any("thriftpipe.mean without thriftpipe.std" in it for it in warnings(caplog))


SOFTMAX = {
    "Clip": "low = Constant <value_float = 0.0> () high = Constant <value_float = 1.0> () "
    "p = Softmax (logits) scores = Clip (p, low, high)",
    "Dropout": "p = Softmax (logits) scores = Dropout (p)",
    "Transpose": "turned = Transpose <perm = [1, 0]> (logits) p = Softmax <axis = 0> (turned) "
    "scores = Transpose <perm = [1, 0]> (p)",
    "Mul": "one = Constant <value_float = 1.0> () p = Softmax (logits) scores = Mul (one, p)",
    "Gather": "order = Constant <value_ints = [0, 1, 2]> () p = Softmax (logits) "
    "scores = Gather <axis = 1> (p, order)",
    "decomposed": "axis = Constant <value_ints = [1]> () e = Exp (logits) "
    "sum = ReduceSum (e, axis) scores = Div (e, sum)",
    "Concat": "p = Softmax (logits) a, b, c = Split <axis = 1> (p) "
    "scores = Concat <axis = 1> (a, b, c)",
}
SIGMOID = {
    "HardSigmoid": "scores = HardSigmoid (logits)",
    "Slice": "from = Constant <value_ints = [0]> () to = Constant <value_ints = [3]> () "
    "axes = Constant <value_ints = [1]> () p = Sigmoid (logits) scores = Slice (p, from, to, axes)",
}
LOGITS = NET.replace("scores", "logits")


SCALE = "scale = Constant <value_float = 0.00390625> () zero = Constant <value = uint8 {0}> () "
QUANTIZED = {
    f"{kind}{middle and ' with Reshape'}": f"{SCALE} {middle or 'few = Identity (logits)'} "
    f"p = {kind} (few) q = QuantizeLinear (p, scale, zero) "
    "scores = DequantizeLinear (q, scale, zero)"
    for kind in ("Softmax", "Sigmoid")
    for middle in ("", "shape = Constant <value_ints = [-1, 3]> () few = Reshape (logits, shape)")
}
PERCENT = (
    "p = Softmax (logits) hundred = Constant <value_float = 100.0> () scores = Mul (p, hundred)"
)


def quantized_by_onnxruntime(folder: Path, quant_format: QuantFormat) -> Path:
    """A model of 40 classes that ends in a softmax, in integers."""

    class Inputs(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            values = np.random.default_rng(seed=0).uniform(-2, 2, (4, 1, 3, 8, 8))
            self._inputs = iter(values.astype(np.float32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._inputs, None)
            return None if image is None else {"image": image}

    path = folder / "m.onnx"
    matrix = ", ".join(map(str, np.random.default_rng(seed=1).normal(size=120).round(3)))
    nodes = (
        LOGITS + f"matrix = Constant <value = float[3,40] {{{matrix}}}> () "
        "more = MatMul (logits, matrix) scores = Softmax (more)"
    )
    save(path, nodes, "float[N,40] scores")
    quantize_static(
        *(path, folder / "q.onnx", Inputs()),
        quant_format=quant_format,
        activation_type=QuantType.QUInt8,
    )
    return folder / "q.onnx"


class TestActivation:
    """What becomes of values that are scores already, or that are none."""

    @pytest.mark.parametrize("end", [*SOFTMAX, *SIGMOID])
    def test_nothing_is_put_behind_what_is_scores_already(
        self, end: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = OnnxModel.load(save(tmp_path / "m.onnx", LOGITS + {**SOFTMAX, **SIGMOID}[end]))
        assert scoring_of(model) == Scoring("none", 3)
        assert not warnings(caplog)
        with pytest.raises(EngineError, match="a second activation would falsify it"):
            scoring_of(model, "softmax")

    @pytest.mark.parametrize("end", QUANTIZED)
    def test_nothing_is_put_behind_what_is_rounded_to_integers(
        self, end: str, tmp_path: Path
    ) -> None:
        model = OnnxModel.load(save(tmp_path / "m.onnx", LOGITS + QUANTIZED[end]))
        assert scoring_of(model) == Scoring("none", 3)
        assert model.final_activation == end.split()[0]

    def test_integers_of_another_scale_are_no_probabilities(self, tmp_path: Path) -> None:
        """And what they add up to is told."""
        nodes = QUANTIZED["Softmax"].replace("(q, scale", "(q, other")
        nodes = "other = Constant <value_float = 0.5> () " + nodes
        model = OnnxModel.load(save(tmp_path / "m.onnx", LOGITS + nodes))
        assert not model.final_activation
        with pytest.raises(EngineError, match="add up to 128 for each of 4 made-up inputs"):
            scoring_of(model)

    @pytest.mark.parametrize("quant_format", QuantFormat)
    def test_what_onnxruntime_quantizes_keeps_its_softmax(
        self, quant_format: QuantFormat, tmp_path: Path
    ) -> None:
        model = OnnxModel.load(quantized_by_onnxruntime(tmp_path, quant_format))
        kinds = {node.op_type for node in model.proto.graph.node}
        assert ("QLinearSoftmax" in kinds) == (quant_format is QuantFormat.QOperator)
        assert not model.trial.ranges["scores"].is_softmax
        assert scoring_of(model) == Scoring("none", 40)

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_percentages_are_asked_about(
        self, handler: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = save(tmp_path / "m.onnx", LOGITS + PERCENT)
        arguments = ("--handler", handler, "--model", str(model))
        line = refusal(*arguments)
        assert "'scores' are never negative and add up to 100 for each of 4" in line
        assert "as probabilities times 100 do: if they are some, export the model without" in line
        assert "if they are logits, use --output-activation softmax; in a TOML file" in line
        refuse_late(tmp_path, *arguments, "--output-activation", "softmax")
        refuse_late(tmp_path, *arguments, "--output-activation", "none")
        assert any("these are no probabilities: they are from " in it for it in warnings(caplog))

    def test_probabilities_that_are_the_same_for_all_made_up_inputs_are_asked_about(
        self, tmp_path: Path
    ) -> None:
        """They may be of a softmax that noise saturates."""
        nodes = (
            LOGITS + "much = Constant <value = float[1,3] {9000, 0, 0}> () "
            "tenth = Constant <value_float = 0.1> () sure = Add (logits, much) "
            "p = Softmax (sure) less = Mul (sure, tenth) q = Softmax (less) scores = Mean (p, q)"
        )
        model = OnnxModel.load(save(tmp_path / "m.onnx", nodes))
        with pytest.raises(EngineError, match=r"probabilities do: .* use --output-activation none"):
            scoring_of(model)
        assert scoring_of(model, "none") == Scoring("none", 3)

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_the_scores_of_a_softmax_of_several_operators_are_served_as_they_are(
        self, handler: str, tmp_path: Path
    ) -> None:
        ending = "tenth = Constant <value_float = 0.1> () few = Mul (logits, tenth) "
        nodes = LOGITS + ending + SOFTMAX["decomposed"].replace("logits", "few")
        model = save(tmp_path / "m.onnx", nodes, thriftpipe_mean="0", thriftpipe_std="1")
        red = cv2.imencode(".png", np.full((8, 8, 3), (0, 0, 50), np.uint8))[1].tobytes()
        with service_here("--handler", handler, "--model", str(model)) as port:
            # The logits of red are 5, 0 and -5.
            expected = np.exp(5) / (np.exp(5) + 1 + np.exp(-5))
            assert score(port, red) == pytest.approx(expected, abs=1e-3)

    def test_what_may_be_a_sigmoid_is_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        nodes = (
            LOGITS + "m = Neg (logits) e = Exp (m) one = Constant <value_float = 1.0> () "
            "sum = Add (e, one) scores = Div (one, sum)"
        )
        model = OnnxModel.load(save(tmp_path / "m.onnx", nodes))
        assert scoring_of(model).activation == "softmax"
        (told,) = warnings(caplog)
        assert "'scores' for made-up inputs are of 0 to 1" in told
        assert "use --output-activation none" in told

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_one_raw_logit_is_no_score(self, handler: str, tmp_path: Path) -> None:
        matrix = (
            "matrix = Constant <value = float[3,1] {1, 1, 1}> () scores = MatMul (logits, matrix)"
        )
        model = save(
            tmp_path / "m.onnx", MEANS.replace("scores", "logits") + matrix, "float[N,1] scores"
        )
        line = refusal(
            *("--handler", handler, "--model", str(model), "--output-activation", "none")
        )
        assert "m.onnx has one value for an image, " in line
        assert "if it is a logit, use --output-activation sigmoid" in line

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_raw_logits_that_are_asked_for_are_a_warning(
        self, handler: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = save(tmp_path / "m.onnx", NET)
        arguments = ("--handler", handler, "--model", str(model))
        refuse_late(tmp_path, *arguments, "--output-activation", "none")
        (told,) = (it for it in warnings(caplog) if "probabilities" in it)
        assert "the values of output 'scores' as they are, and these are no probabilities" in told

    def test_a_softmax_beside_a_sigmoid_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = tmp_path / "c.toml"
        config.write_text(
            CONFIG.format("", save(tmp_path / "m.onnx", NET))
            + 'postprocessor = "SoftmaxCpu"\noutput_activation = "sigmoid"\n'
        )
        line = refusal("--handler", "pipeline", "--config", str(config))
        assert "SoftmaxCpu makes a softmax, and output_activation" in line
        assert pipeline(["check", str(config)]) == 1
        assert "SoftmaxCpu makes a softmax, and output_activation" in capsys.readouterr().out


MIXING = {
    "a softmax over the batch": "scores = Softmax <axis = 0> (logits)",
    "a mean of the batch": "mean = ReduceMean <axes = [0]> (logits) scores = Sub (logits, mean)",
    "a reshape": "shape = Constant <value_ints = [3, -1]> () turned = Reshape (logits, shape) "
    "scores = Transpose <perm = [1, 0]> (turned)",
}


CHANGING = {
    "noise": "noise = RandomNormalLike (logits) scores = Add (logits, noise)",
    "batch normalization in training": "a = Constant <value = float[3] {1, 1, 1}> () "
    "b = Constant <value = float[3] {0, 0, 0}> () m = Constant <value = float[3] {0, 0, 0}> () "
    "v = Constant <value = float[3] {1, 1, 1}> () "
    "scores, c, d = BatchNormalization <training_mode = 1> (logits, a, b, m, v)",
}


def save_fixed(path: Path, nodes: str) -> Path:
    """A model of nodes that give `rows`, whose batch is 1 in the graph itself."""
    nodes += " shape = Constant <value_ints = [1, 3]> () scores = Reshape (rows, shape)"
    return save(path, nodes, "float[1,3] scores", "float[1,3,8,8] image")


class TestBatches:
    """Answers are those of the image alone, whatever is beside it in a batch."""

    @pytest.mark.parametrize("how", MIXING)
    def test_rows_that_depend_on_each_other_are_refused(self, how: str, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"m\.onnx: its rows depend on each other: .*export"):
            OnnxModel.load(save(tmp_path / "m.onnx", LOGITS + MIXING[how]))

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_a_batch_that_is_built_in_beside_a_dynamic_one_is_refused(
        self, handler: str, tmp_path: Path
    ) -> None:
        nodes = (
            LOGITS + "shape = Constant <value_ints = [1, 3]> () scores = Reshape (logits, shape)"
        )
        line = refusal("--handler", handler, "--model", str(save(tmp_path / "m.onnx", nodes)))
        assert "it cannot run two inputs in one batch" in line
        assert "with a dynamic batch dimension" in line

    @pytest.mark.parametrize("handler", HANDLERS)
    def test_a_fixed_batch_of_one_is_served_one_by_one(
        self, handler: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = save_fixed(tmp_path / "m.onnx", MEANS.replace("scores", "rows"))
        config = tmp_path / "c.toml"
        config.write_text(
            CONFIG.format("", model)
            + 'mean = "0"\nstd = "1"\nmin = 2\nmax = 4\noutput_activation = "none"\n'
        )
        arguments = {
            "baseline": (
                *("--model", str(model), "--mean", "0", "--std", "1", "--max-batch-size", "4"),
                *("--output-activation", "none"),
            ),
            "pipeline": ("--config", str(config)),
        }[handler]
        with service_here("--handler", handler, *arguments) as port:
            client = connect(port)
            images = [inference.InferenceParams(uuid="1", data=image(it)) for it in (10, 80, 40)]
            results = client.infer_images(images, inference.InferOptions(top_k=1))
            client.close()
        assert [round(it.top_k[0].score, 3) for it in results] == [0.1, 0.8, 0.4]
        (told,) = (it for it in warnings(caplog) if "batches of one row" in it)
        assert "m.onnx runs batches of one row, which its file fixes (it cannot run two" in told

    @pytest.mark.parametrize("engine", CPU_ENGINES)
    def test_every_engine_runs_a_fixed_batch_of_one(self, engine: str, tmp_path: Path) -> None:
        path = save_fixed(tmp_path / "m.onnx", MEANS.replace("scores", "rows"))
        model = OnnxModel.load(path).with_uint8_input(Normalization((0.0,), (1.0,)))
        loaded = load_engine(choose_engine(engine), model, EngineOptions(max_batch_size=4))
        context = loaded.create_context()
        pixels = torch.full((1, 3, 8, 8), 7, dtype=torch.uint8)
        (scores,) = context.run([(pixels,)])
        assert scores[0].tolist() == pytest.approx([0.07] * 3)
        with pytest.raises(EngineError, match="a batch holds at most 1 rows, got 2"):
            context.run([(pixels,), (pixels,)])

    def test_a_fixed_batch_of_one_gives_the_same_answer_each_time(self, tmp_path: Path) -> None:
        path = save_fixed(tmp_path / "m.onnx", LOGITS + CHANGING["noise"].replace("scores", "rows"))
        with pytest.raises(EngineError, match="another one each time for the same input"):
            OnnxModel.load(path)

    def test_a_fixed_batch_that_onnxruntime_cannot_run_is_left_to_other_engines(
        self, tmp_path: Path
    ) -> None:
        nodes = (
            "few = Cast <to = 16> (image) pooled = GlobalAveragePool (few) "
            "flat = Flatten (pooled) scores = Cast <to = 1> (flat)"
        )
        one, four = (
            save(
                tmp_path / f"{rows}.onnx",
                *(nodes, f"float[{rows},3] scores", f"float[{rows},3,8,8] image"),
            )
            for rows in (1, 4)
        )
        with pytest.raises(EngineError, match=r"exactly 4 \(it cannot be tried out whether"):
            OnnxModel.load(four)
        model = OnnxModel.load(one)
        loaded = load_engine(choose_engine("torch"), model, EngineOptions(max_batch_size=4))
        (scores,) = loaded.create_context().run([(torch.full((1, 3, 8, 8), 7.0),)])
        assert scores.tolist() == [[7, 7, 7]]

    @pytest.mark.parametrize("how", CHANGING)
    def test_an_answer_that_is_another_one_each_time_is_named(
        self, how: str, tmp_path: Path
    ) -> None:
        """onnxruntime keeps the statistics of batch normalization from one run to the next."""
        with pytest.raises(EngineError, match=r"each time for the same input; .* inference mode"):
            OnnxModel.load(save(tmp_path / "m.onnx", LOGITS + CHANGING[how]))

    def test_of_several_outputs_only_the_one_that_is_served_counts(self, tmp_path: Path) -> None:
        nodes = NET + "mixed = Softmax <axis = 0> (scores)"
        model = OnnxModel.load(
            save(tmp_path / "m.onnx", nodes, "float[N,3] scores, float[N,3] mixed")
        )
        assert model.with_output("scores").num_scores == 3
        with pytest.raises(EngineError, match="output 'mixed' of an input is another one"):
            model.with_output("mixed")

    def test_a_dynamically_quantized_model_is_served(self, tmp_path: Path) -> None:
        """What rounds to few bits is no mixing of rows."""
        nodes = """
        kernel = Constant <value = uint8[3,3,1,1] {1, 2, 0, 0, 1, 3, 2, 0, 1}> ()
        q, scale, zero = DynamicQuantizeLinear (image)
        origin = Constant <value = uint8 {1}> ()
        maps = ConvInteger (q, kernel, zero, origin)
        floats = Cast <to = 1> (maps)
        scaled = Mul (floats, scale)
        pooled = GlobalAveragePool (scaled)
        scores = Flatten (pooled)
        """
        assert OnnxModel.load(save(tmp_path / "q.onnx", nodes)).num_scores == 3


class TestDiagnoses:
    """Models that cannot be served say why, in one line."""

    @pytest.mark.parametrize("engine", CPU_ENGINES)
    @pytest.mark.parametrize("handler", HANDLERS)
    def test_an_output_that_does_not_depend_on_the_image(
        self, handler: str, engine: str, tmp_path: Path
    ) -> None:
        constant = "other = Constant <value = float[1,3] {1, 2, 3}> ()"
        one = save(tmp_path / "one.onnx", constant, "float[N,3] other")
        two = save(tmp_path / "two.onnx", NET + constant, "float[N,3] scores, float[N,3] other")
        for arguments in ((str(one),), (str(two), "--output", "other")):
            line = refusal("--handler", handler, "--engine", engine, "--model", *arguments)
            assert "output 'other' float32 N x 3 does not depend on the image" in line

    @pytest.mark.parametrize("behind", ["Identity", "Softmax", "Flatten"])
    @pytest.mark.parametrize("handler", HANDLERS)
    def test_the_best_scores_without_their_classes(
        self, handler: str, behind: str, tmp_path: Path
    ) -> None:
        best = "two = Constant <value_ints = [2]> () top, ids = TopK (scores, two) "
        best += f"best = {behind} (top)"
        one = save(tmp_path / "one.onnx", NET + best, "float[N,2] best")
        two = save(tmp_path / "two.onnx", NET + best, "float[N,2] best, int64[N,2] ids")
        all_ = save(tmp_path / "all.onnx", NET + best, "float[N,2] best, float[N,3] scores")
        for arguments in ((str(one),), (str(two),), (str(all_), "--output", "best")):
            line = refusal("--handler", handler, "--model", *arguments)
            assert "output 'best' float32 N x 2 is that of a TopK, the best scores without" in line

    def test_the_maximum_of_each_class_is_a_score(self, tmp_path: Path) -> None:
        nodes = """
            sizes = Constant <value_ints = [0, 3, 64]> () all = Reshape (image, sizes)
            one = Constant <value_ints = [1]> () top, ids = TopK (all, one) scores = Flatten (top)
        """
        model = save(tmp_path / "m.onnx", nodes, "float[N,3] scores")
        assert scoring_of(OnnxModel.load(model)).num_classes == 3

    @pytest.mark.parametrize(
        ("takes", "nodes", "output", "told"),
        [
            (
                "float[3,8,8] image",
                "axes = Constant <value_ints = [0]> () batch = Unsqueeze (image, axes) "
                + NET.replace("(image", "(batch"),
                "float[1,3] scores",
                "input 'image' of shape 3 x 8 x 8 has no batch dimension; export it again with one "
                "in front: N x 3 x 8 x 8",
            ),
            (
                "float[1,3,8,8] image",
                LOGITS + "axes = Constant <value_ints = [0]> () scores = Squeeze (logits, axes)",
                "float[3] scores",
                "output 'scores' has no batch dimension: for one input it is 3; export",
            ),
        ],
    )
    def test_no_batch_dimension(
        self, takes: str, nodes: str, output: str, told: str, tmp_path: Path
    ) -> None:
        model = save(tmp_path / "m.onnx", nodes, output, takes)
        assert told in refusal("--handler", "pipeline", "--model", str(model))

    def test_an_output_that_is_set_is_looked_for_before_the_engine_loads(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        nodes = NET + "other = Neg (scores)"
        model = save(tmp_path / "m.onnx", nodes, "float[N,3] scores, float[N,3] other")
        arguments = ("--handler", "pipeline", "--model", str(model))
        line = refusal(*arguments, "--set", "resnet50.output=othr")
        assert "has no output 'othr'; did you mean 'other'?" in line
        refuse_late(tmp_path, *arguments, "--set", "resnet50.output=other")
        config = tmp_path / "c.toml"
        for name in (str(model), "resnet50"):
            config.write_text(CONFIG.format("", name) + 'output = "score"\n')
            assert pipeline(["check", str(config)]) == 1
            told = capsys.readouterr().out
            assert "has no output 'score'; did you mean 'scores'? " in told
            assert pipeline(["check", str(config), "--set", "model.output=scores"]) == 0
            capsys.readouterr()

    def test_a_global_value_that_no_node_takes_is_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        arguments = ("--handler", "pipeline", "--model", str(save(tmp_path / "m.onnx", NET)))
        refuse_late(tmp_path, *arguments, "--set", "output=z", "--set", "batching_timeout=4")
        (told,) = (it for it in warnings(caplog) if "--set" in it)
        assert told.startswith("--set output changes nothing")
        assert "use --set m.output=..." in told
