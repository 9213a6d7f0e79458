from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pkgutil import resolve_name

import pytest

from engine import registry
from engine.errors import EngineError
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.registry import ENGINE_NAMES, choose_engine, fallback_precision, load_engine
from interfaces.engines import PROVIDERS, Provider
from tests.engines import CPU_ENGINES


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """TensorRT for RTX in the place of TensorRT, which is not to be had without a GPU."""
    rtx_bindings = pytest.importorskip("tensorrt_rtx_bindings")
    monkeypatch.setitem(sys.modules, "tensorrt", rtx_bindings)
    yield
    sys.modules.pop("engine.providers.tensorrt.engine", None)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether there is a GPU decides the choice; nothing runs on it."""
    monkeypatch.setattr(registry, "cuda_available", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "cuda_available", lambda: False)


class TestChoice:
    def test_auto_takes_onnxruntime_in_fp32(self) -> None:
        choice = choose_engine("auto")
        assert (choice.name, choice.precision) == ("onnxruntime", "fp32")
        assert choice.reason == "the default on a CPU"

    def test_auto_takes_openvino_in_bf16(self) -> None:
        choice = choose_engine("auto", "bf16")
        assert (choice.name, choice.precision) == ("openvino", "bf16")
        assert "bf16" in choice.reason

    def test_auto_takes_openvino_in_int8(self) -> None:
        choice = choose_engine("auto", "int8")
        assert (choice.name, choice.reason) == ("openvino", "the fastest in int8 on a CPU")

    @pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
    @pytest.mark.usefixtures("gpu", "tensorrt")
    def test_auto_takes_tensorrt_on_a_gpu(self, precision: str) -> None:
        choice = choose_engine("auto", precision)
        assert (choice.name, choice.reason) == ("tensorrt", "the fastest on an NVIDIA GPU")
        assert choice.device == "cuda"

    @pytest.mark.usefixtures("gpu", "tensorrt")
    def test_auto_takes_torch_on_a_gpu_for_what_tensorrt_lacks(self) -> None:
        assert choose_engine("auto", "bf16").name == "torch"

    @pytest.mark.usefixtures("gpu")
    def test_tensorrt_without_its_package_names_the_extra(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        assert choose_engine("auto", "fp16").name == "torch"
        with pytest.raises(EngineError, match=r"pip install 'thriftpipe\[tensorrt\]'"):
            choose_engine("tensorrt", "fp16")

    @pytest.mark.usefixtures("no_gpu", "tensorrt")
    def test_tensorrt_without_a_gpu_says_so(self) -> None:
        assert choose_engine("auto").name == "onnxruntime"
        with pytest.raises(EngineError, match="'tensorrt' needs an NVIDIA GPU and a CUDA build"):
            choose_engine("tensorrt", "fp16")

    @pytest.mark.parametrize("name", CPU_ENGINES)
    def test_a_name_is_taken_at_its_word(self, name: str) -> None:
        choice = choose_engine(name, "fp32")
        assert (choice.name, choice.reason) == (name, "asked for by name")

    def test_a_typo_gets_the_closest_name(self) -> None:
        with pytest.raises(EngineError, match=r"'onxruntime'; did you mean 'onnxruntime'\?"):
            choose_engine("onxruntime")

    def test_the_known_names_include_auto(self) -> None:
        known = ", ".join(sorted(["auto", *ENGINE_NAMES]))
        with pytest.raises(EngineError, match=f"Known: {known}"):
            choose_engine("x")

    def test_a_precision_that_does_not_exist(self) -> None:
        with pytest.raises(EngineError, match=r"unknown precision 'fp23'; did you mean 'fp32'\?"):
            choose_engine("auto", "fp23")

    def test_a_precision_that_only_others_run(self) -> None:
        with pytest.raises(
            EngineError,
            match="'onnxruntime' runs fp32 or int8, got precision 'bf16'; "
            "openvino or torch runs bf16",
        ):
            choose_engine("onnxruntime", "bf16")

    @pytest.mark.usefixtures("no_gpu")
    def test_a_precision_that_nothing_here_runs(self) -> None:
        with pytest.raises(EngineError, match="got precision 'fp16'; no engine here runs that"):
            choose_engine("auto", "fp16")

    def test_a_missing_package_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(EngineError, match=r"pip install 'thriftpipe\[openvino\]'"):
            choose_engine("auto", "bf16")


class TestFallbackPrecision:
    @pytest.mark.parametrize(
        ("name", "wanted", "runs"),
        [
            ("onnxruntime", "fp16", "fp32"),
            ("onnxruntime", "bf16", "fp32"),
            ("openvino", "bf16", "bf16"),
            ("openvino", "int8", "int8"),
            ("torch", "int8", "fp32"),
            ("torch", "fp32", "fp32"),
        ],
    )
    def test_what_a_provider_lacks_runs_in_fp32(self, name: str, wanted: str, runs: str) -> None:
        assert fallback_precision(name, wanted) == runs

    def test_typos_get_the_closest_name(self) -> None:
        with pytest.raises(EngineError, match="did you mean 'openvino'"):
            fallback_precision("openvin", "fp16")
        with pytest.raises(EngineError, match="did you mean 'fp16'"):
            fallback_precision("openvino", "fp61")


class TestLoading:
    @pytest.mark.parametrize("name", CPU_ENGINES)
    def test_one_line_says_what_runs(
        self, name: str, small_model: OnnxModel, caplog: pytest.LogCaptureFixture
    ) -> None:
        options = EngineOptions(num_contexts=2, threads_per_context=1)
        with caplog.at_level(logging.INFO, logger=registry.__name__):
            engine = load_engine(choose_engine(name), small_model, options)
        assert engine.name == name
        assert caplog.messages == [
            f"engine {name} (asked for by name): small.onnx, fp32, 2 contexts x 1 threads"
        ]

    def test_the_choice_decides_the_precision(self, small_model: OnnxModel) -> None:
        engine = load_engine(choose_engine("torch", "bf16"), small_model, EngineOptions())
        assert engine.options.precision == "bf16"

    @pytest.mark.usefixtures("tensorrt")
    @pytest.mark.parametrize("provider", PROVIDERS, ids=lambda it: f"{it.name} on {it.device}")
    def test_the_table_agrees_with_the_classes(self, provider: Provider) -> None:
        engine_class = resolve_name(provider.target)
        assert engine_class.name == provider.name
        assert engine_class.precisions == provider.precisions
        assert engine_class.device == provider.device

    def test_only_the_chosen_provider_is_imported(self) -> None:
        """A host needs the packages of the engine it runs, and of no other."""
        program = (
            "import sys; from engine.registry import choose_engine; "
            "choose_engine('onnxruntime'); choose_engine('openvino'); "
            "assert not {'onnxruntime', 'openvino'} & sys.modules.keys()"
        )
        subprocess.run([sys.executable, "-c", program], check=True)
