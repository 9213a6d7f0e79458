from __future__ import annotations

import importlib
import logging
import subprocess
import sys

import pytest

from engine import registry
from engine.interface import EngineError, EngineOptions
from engine.onnx_model import OnnxModel
from engine.registry import ENGINE_NAMES, choose_engine, load_engine, stand_in_precision


class TestChoice:
    def test_auto_takes_onnxruntime_in_fp32(self) -> None:
        choice = choose_engine("auto")
        assert (choice.name, choice.precision) == ("onnxruntime", "fp32")
        assert choice.reason == "the default on a CPU"

    def test_auto_takes_openvino_in_bf16(self) -> None:
        choice = choose_engine("auto", "bf16")
        assert (choice.name, choice.precision) == ("openvino", "bf16")
        assert "bf16" in choice.reason

    @pytest.mark.parametrize("name", ENGINE_NAMES)
    def test_a_name_is_taken_at_its_word(self, name: str) -> None:
        choice = choose_engine(name, "fp32")
        assert (choice.name, choice.reason) == (name, "asked for by name")

    def test_a_typo_gets_the_closest_name(self) -> None:
        with pytest.raises(EngineError, match=r"'onxruntime'; did you mean 'onnxruntime'\?"):
            choose_engine("onxruntime")

    def test_the_known_names_include_auto(self) -> None:
        with pytest.raises(EngineError, match="Known: auto, onnxruntime, openvino, torch"):
            choose_engine("x")

    def test_a_precision_that_does_not_exist(self) -> None:
        with pytest.raises(EngineError, match=r"unknown precision 'fp23'; did you mean 'fp32'\?"):
            choose_engine("auto", "fp23")

    def test_a_precision_that_only_others_run(self) -> None:
        with pytest.raises(
            EngineError,
            match="'onnxruntime' runs fp32, got precision 'bf16'; openvino or torch runs bf16",
        ):
            choose_engine("onnxruntime", "bf16")

    def test_a_precision_that_nothing_here_runs(self) -> None:
        with pytest.raises(EngineError, match="got precision 'int8'; no engine here runs that"):
            choose_engine("auto", "int8")

    def test_a_missing_package_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(EngineError, match=r"pip install 'thriftpipe\[openvino\]'"):
            choose_engine("auto", "bf16")


class TestStandIn:
    @pytest.mark.parametrize(
        ("name", "wanted", "runs"),
        [
            ("onnxruntime", "fp16", "fp32"),
            ("onnxruntime", "bf16", "fp32"),
            ("openvino", "bf16", "bf16"),
            ("openvino", "int8", "fp32"),
            ("torch", "fp32", "fp32"),
        ],
    )
    def test_what_a_provider_lacks_runs_in_fp32(self, name: str, wanted: str, runs: str) -> None:
        assert stand_in_precision(name, wanted) == runs

    def test_typos_get_the_closest_name(self) -> None:
        with pytest.raises(EngineError, match="did you mean 'openvino'"):
            stand_in_precision("openvin", "fp16")
        with pytest.raises(EngineError, match="did you mean 'fp16'"):
            stand_in_precision("openvino", "fp61")


class TestLoading:
    @pytest.mark.parametrize("name", ENGINE_NAMES)
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

    @pytest.mark.parametrize("name", ENGINE_NAMES)
    def test_the_table_agrees_with_the_classes(self, name: str) -> None:
        module, _, attribute = registry._PROVIDERS[name].target.partition(":")
        provider = getattr(importlib.import_module(module), attribute)
        assert provider.name == name
        assert provider.precisions == registry._PROVIDERS[name].precisions

    def test_only_the_chosen_provider_is_imported(self) -> None:
        """A host needs the packages of the engine it runs, and of no other."""
        program = (
            "import sys; from engine.registry import choose_engine; "
            "choose_engine('onnxruntime'); choose_engine('openvino'); "
            "assert not {'onnxruntime', 'openvino'} & sys.modules.keys()"
        )
        subprocess.run([sys.executable, "-c", program], check=True)
