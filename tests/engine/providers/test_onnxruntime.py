from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from engine.errors import EngineError
from engine.onnx_graph.model import OnnxModel
from engine.options import EngineOptions
from engine.providers.onnxruntime import OnnxRuntimeEngine


@pytest.mark.parametrize(
    ("contexts", "threads", "pool"), [(1, 1, 1), (1, 4, 4), (2, 1, 1), (2, 2, 3), (3, 4, 10)]
)
def test_pool_and_callers_together_are_contexts_times_threads(
    small_model: OnnxModel, contexts: int, threads: int, pool: int
) -> None:
    """onnxruntime's number counts one caller; the other contexts' callers work as well."""
    options = EngineOptions(num_contexts=contexts, threads_per_context=threads)
    engine = OnnxRuntimeEngine(small_model, options)
    used = engine.session.get_session_options()
    assert used.intra_op_num_threads == pool
    assert (pool - 1) + contexts == contexts * threads
    assert used.inter_op_num_threads == 1


@pytest.mark.parametrize(("contexts", "threads", "spins"), [(1, 2, True), (2, 2, False)])
def test_threads_spin_only_where_they_take_no_core_from_another_context(
    small_model: OnnxModel, contexts: int, threads: int, spins: bool
) -> None:
    options = EngineOptions(num_contexts=contexts, threads_per_context=threads)
    used = OnnxRuntimeEngine(small_model, options).session.get_session_options()
    key = "session.intra_op.allow_spinning"
    if spins:
        with pytest.raises(RuntimeError, match=key):
            used.get_session_config_entry(key)
    else:
        assert used.get_session_config_entry(key) == "0"


def test_a_graph_that_it_cannot_load_is_one_line(
    small_proto: Callable[..., onnx.ModelProto], tmp_path: Path
) -> None:
    proto = small_proto()
    proto.graph.node[0].domain = "elsewhere"
    proto.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    onnx.save(proto, tmp_path / "m.onnx")
    model = OnnxModel.load(tmp_path / "m.onnx")
    with pytest.raises(EngineError, match=r"onnxruntime cannot load .*m\.onnx") as caught:
        OnnxRuntimeEngine(model, EngineOptions())
    assert "\n" not in str(caught.value)
