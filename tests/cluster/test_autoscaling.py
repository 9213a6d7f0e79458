"""As many replicas as keep the expected wait short: load, policy, and both on a real Ray."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cluster.autoscaling import LOAD, BusyShare, LoadPolicy, load
from service.admission import Admission
from service.client import Client
from service.handlers.warm_up import sample_jpeg
from tests.cluster.needs import needs_ray
from tests.image_models import save_linear_classifier
from tests.serving import TIMEOUT_S, ServerProcess

_MOST = 2
_CALLERS = 8
_GRAPH = """
[slow]
backend = "SlowModel"
next = "decoder"

[decoder]
backend = "S[DecodeMat,ResizeMat,cvtColorMat,Mat2Tensor]"
resize_h = 8
resize_w = 8
next = "model"

[model]
backend = "TensorrtTensor"
model = "{model}"
mean = "0, 0, 0"
std = "1, 1, 1"
"""
# An image takes as long as this says, whatever else the cores have to do.
_BACKENDS = """
import threading
from pipeline import register_backend

@register_backend
class SlowModel:
    def forward(self, items):
        for item in items:
            threading.Event().wait(0.15)
            item["result"] = item["data"]
"""


@pytest.mark.parametrize(
    ("wait_s", "batch_s", "busy_share", "max_queue_ms", "expected"),
    [
        (0.15, 0.01, 0.6, 450, 1.0),
        (0.3, 0.01, 1.0, 450, 2.0),
        (0.0, 0.01, 0.0, 450, 0.0),
        # Without a limit.
        (0.15, 0.01, 0.6, 0, 1.0),
        # A batch of a slow model alone takes longer than what is to be kept.
        (2.0, 1.0, 0.6, 450, 1.0),
        # A fast model: the wait is short until there is more work than can be done.
        (0.01, 0.01, 0.7, 450, 1.0),
        (0.01, 0.01, 0.35, 450, 0.5),
    ],
)
def test_load_is_1_where_wait_or_work_is_what_is_to_be_kept(
    wait_s: float, batch_s: float, busy_share: float, max_queue_ms: int, expected: float
) -> None:
    assert load(wait_s, batch_s, busy_share, max_queue_ms) == pytest.approx(expected)


def test_the_busy_share_is_that_since_the_last_look() -> None:
    now_s = 10.0
    admission = Admission(2, 100, first_guess_s=0.05, clock=lambda: now_s)
    share = BusyShare(now_s)
    with admission.admit(1):
        now_s = 14.0
    # One of two that could be worked on, for all of the time.
    assert share.look(admission.busy_s, now_s) == pytest.approx(0.5)
    with admission.admit(8):
        now_s = 15.0
    now_s = 18.0
    assert share.look(admission.busy_s, now_s) == pytest.approx(0.25)
    assert share.look(admission.busy_s, now_s) == 0.0


def test_a_steady_load_keeps_its_replicas() -> None:
    """Eight replicas that work 0.7 of the time, 10 ms an image: their wait is next to nothing."""
    context = SimpleNamespace(
        aggregated_metrics={LOAD: {str(n): load(0.007, 0.01, 0.7, 450) for n in range(8)}},
        current_num_replicas=8,
        target_num_replicas=8,
    )
    assert LoadPolicy()(context)[0] == pytest.approx(8)


def test_the_policy_wants_so_many_that_the_mean_load_becomes_1() -> None:
    policy = LoadPolicy()

    def wanted(loads: dict[str, float], there: int = 2, target: int = 2) -> float:
        context = SimpleNamespace(
            aggregated_metrics={LOAD: loads} if loads else {},
            current_num_replicas=there,
            target_num_replicas=target,
        )
        return policy(context)[0]

    assert wanted({"a": 3.0, "b": 1.0}) == 4
    assert wanted({"a": 0.5, "b": 0.5}) == 1
    # While none has told, everything stays.
    assert wanted({}, there=2, target=3) == 3


def test_the_expected_wait_is_that_of_all_that_are_there() -> None:
    now_s = 0.0
    admission = Admission(2, 100, first_guess_s=0.05, clock=lambda: now_s)
    assert admission.expected_wait_s == 0.0
    assert admission.full_batch_s == pytest.approx(0.1)
    with admission.admit(8):
        assert admission.expected_wait_s == pytest.approx(0.4)


@needs_ray
def test_load_brings_a_second_replica(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    save_linear_classifier(model, 0.01 * np.eye(3, dtype=np.float32), 8)
    (tmp_path / "graph.toml").write_text(_GRAPH.format(model=model))
    (tmp_path / "backends.py").write_text(_BACKENDS)
    arguments = ["-m", "service", "--port", "0", "--config", str(tmp_path / "graph.toml")]
    arguments += ["--backends", str(tmp_path / "backends.py"), "--cluster", "local"]
    arguments += ["--min-replicas", "1", "--max-replicas", str(_MOST), "--calibrate", "off"]
    # What waits too long would be refused, and be no load.
    arguments += ["--max-queue-ms", "0"]
    is_over = threading.Event()
    with closing(ServerProcess(arguments)) as process:
        port = process.port()
        reader = threading.Thread(target=process.wait_for_end)
        reader.start()
        with Client(port=port, max_connections=_CALLERS + 1) as client:

            def call_on() -> None:
                while not is_over.is_set():
                    client.classify(sample_jpeg())

            threads = [threading.Thread(target=call_on) for _ in range(_CALLERS)]
            for thread in threads:
                thread.start()
            try:
                end_s = time.monotonic() + TIMEOUT_S
                while len(client.stats().workers) < _MOST:
                    assert time.monotonic() < end_s, process.log
                    is_over.wait(0.2)
            finally:
                is_over.set()
                for thread in threads:
                    thread.join(TIMEOUT_S)
        process.process.terminate()
        reader.join(TIMEOUT_S)
        assert process.process.returncode == 0
