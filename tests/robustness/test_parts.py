"""The parts of fuzz, chaos and soak: encoding, judging, mutating, statistics, the bad network."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.thrift import TMessageType
from thriftpy2.transport import TMemoryBuffer

from idl import inference
from loadtest.errors import LoadTestError
from loadtest.records.raw_files import read, read_table
from loadtest.records.run import Check, Sample, new_run
from tests.robustness import fairness, wire
from tests.robustness.chaos_checks import fairness_checks, load_checks
from tests.robustness.checking_clients import (
    BAD,
    DEADLINE,
    FAILED,
    INTERNAL,
    INVALID_IMAGE,
    LATE,
    REFUSED,
    RIGHT,
    WRONG,
    KnownImage,
    outcomes_of,
)
from tests.robustness.colour_model import LABELS, encoded, write_colour_model
from tests.robustness.corpus import seed_images, seed_messages
from tests.robustness.drift import quintiles, slope
from tests.robustness.fairness import Fairness
from tests.robustness.fuzz import memory_growth
from tests.robustness.load_loop import Answer, LoadLoop
from tests.robustness.mutation import Mutator, set_dimensions
from tests.robustness.overload import (
    CAPACITY,
    FACTORS,
    LoadWindow,
    learn_labels,
    overload,
    window_of,
)
from tests.robustness.proxy import BadNetwork
from tests.robustness.results import finish, report
from tests.robustness.server_under_test import ServerUnderTest


def _reply(result: object, message_type: int = TMessageType.REPLY, sequence_id: int = 5) -> bytes:
    """A reply of infer_images in thriftpy2's encoding, without a frame."""
    buffer = TMemoryBuffer()
    protocol = TBinaryProtocol(buffer)
    protocol.write_message_begin("infer_images", message_type, sequence_id)
    result.write(protocol)  # type: ignore[attr-defined]
    protocol.write_message_end()
    return bytes(buffer.getvalue())


def _results(*results: object) -> bytes:
    return _reply(inference.InferenceService.infer_images_result(success=list(results)))


class TestWire:
    """Encoding and decoding by hand agree with thriftpy2's."""

    @given(
        st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=30)), max_size=3),
        st.none() | st.integers(1, 9),
    )
    def test_calls_are_what_thriftpy2_reads(
        self, images: list[tuple[str, bytes]], top_k: int | None
    ) -> None:
        """Name, sequence id and every argument arrive."""
        pairs = [(uuid.encode(), data) for uuid, data in images]
        buffer = TMemoryBuffer(wire.infer_images(77, pairs, top_k=top_k))
        protocol = TBinaryProtocol(buffer, decode_response=False)
        assert protocol.read_message_begin()[-1] == 77
        arguments = inference.InferenceService.infer_images_args()
        arguments.read(protocol)
        assert [(params.uuid, params.data) for params in arguments.requests] == pairs
        assert (arguments.options and arguments.options.top_k) == top_k

    def test_every_cut_of_a_reply_is_incomplete(self) -> None:
        """So that a client goes on receiving."""
        data = _results(
            inference.InferenceResult("red", 0.5, uuid="u", stage_times_ms={"decode": 1.5})
        )
        whole = wire.decode(data)
        assert whole.size == len(data)
        assert whole.fields[0][0][1] == b"red"
        assert whole.fields[0][0][7] == {b"decode": 1.5}
        for end in range(len(data)):
            with pytest.raises(wire.IncompleteError):
                wire.decode(data[:end])

    def test_bytes_that_are_no_reply_are_told(self) -> None:
        """HTTP, for example."""
        with pytest.raises(wire.WireError, match="HTTP"):
            wire.decode(b"HTTP/1.1 400")

    def test_two_replies_to_one_call_are_one_too_many(self) -> None:
        """Exactly once is part of what is checked."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(2 * wire.frame(_results()))
            with pytest.raises(wire.WireError, match="follow"):
                wire.receive(ours, framed=True)


class TestOutcomes:
    """A reply is judged image by image."""

    expected = ((b"a", "red"), (b"b", None))

    def _judge(self, *results: object, sequence_id: int = 5) -> list[str]:
        return outcomes_of(wire.decode(_results(*results)), sequence_id, self.expected)[0]

    def _error(self, uuid: str, code: int) -> object:
        error = inference.ImageError(code, "why")
        return inference.InferenceResult("", 0.0, uuid=uuid, error=error)

    def test_right_and_declared(self) -> None:
        """Labels, and each of the contract's errors."""
        red = inference.InferenceResult("red", 0.9, uuid="a")
        assert self._judge(red, self._error("b", INVALID_IMAGE)) == [RIGHT, BAD]
        both = [self._error("a", INTERNAL), self._error("b", DEADLINE)]
        assert self._judge(*both) == [FAILED, LATE]

    def test_wrong(self) -> None:
        """Another label, another's uuid, a good image refused, a bad one classified."""
        blue = inference.InferenceResult("blue", 0.9, uuid="a")
        other = inference.InferenceResult("red", 0.9, uuid="b")
        bad = self._error("b", INVALID_IMAGE)
        for first in (blue, other, self._error("a", INVALID_IMAGE)):
            assert self._judge(first, bad) == [WRONG, BAD]
        red = inference.InferenceResult("red", 0.9, uuid="a")
        assert self._judge(red, other) == [RIGHT, WRONG]
        assert self._judge(red) == [WRONG, WRONG]
        assert self._judge(red, bad, sequence_id=6) == [WRONG, WRONG]

    def test_exceptions(self) -> None:
        """Overloaded is declared; an undeclared exception is wrong."""
        result = inference.InferenceService.infer_images_result
        overloaded = _reply(result(overloaded=inference.Overloaded("full", 10)))
        assert outcomes_of(wire.decode(overloaded), 5, self.expected)[0] == [REFUSED] * 2
        undeclared = _reply(result(), message_type=TMessageType.EXCEPTION)
        assert outcomes_of(wire.decode(undeclared), 5, self.expected)[0] == [WRONG] * 2


class TestMutation:
    """The seeds are good, and the same seed gives the same mutants."""

    def test_every_seed_image_decodes(self) -> None:
        """A mutation of rubbish would test nothing."""
        images = seed_images()
        assert len({*images}) == len(images) >= 18
        for data in images:
            assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None

    def test_the_same_seed_repeats_itself(self) -> None:
        """And another one does not."""
        images = seed_images()
        first, second, other = (
            [Mutator(seed, seed_messages(images), images).next() for _ in range(3)]
            for seed in ("1-0", "1-0", "1-1")
        )
        assert first == second != other

    def test_requests_with_mutated_images_are_whole(self) -> None:
        """Their framing is valid: the server must answer them."""
        images = seed_images()
        mutator = Mutator("0", seed_messages(images), images)
        mutants = [mutator.next() for _ in range(2000)]
        whole = [mutant for mutant in mutants if mutant.whole]
        assert 800 < len(whole) < 1200
        for mutant in whole:
            if mutant.framed:
                assert int.from_bytes(mutant.data[:4], "big") == len(mutant.data) - 4
        assert max(len(mutant.data) for mutant in mutants) < 256 * 1024

    @pytest.mark.parametrize("suffix", [".jpg", ".png"])
    def test_headers_may_say_65535(self, suffix: str) -> None:
        """The header is changed where the sides stand: 40 x 28 pixels before."""
        data = bytearray(encoded("red", 40, 28, suffix))
        set_dimensions(data, b"\xff\xff")
        assert data.count(b"\xff\xff") >= (1 if suffix == ".jpg" else 2)
        assert bytes(data) != encoded("red", 40, 28, suffix)


class TestDrift:
    """Slopes with intervals, and the ends of a series."""

    def test_a_leak_is_beyond_noise(self) -> None:
        """1 MiB a second with some noise of its own."""
        rng = np.random.default_rng(1)
        times = [float(second) for second in range(600)]
        leak = slope(times, [100 + second + rng.normal(0, 3) for second in times])
        assert leak.per_s == pytest.approx(1, abs=0.02)
        assert leak.interval.low is not None
        assert leak.interval.low <= leak.per_s
        assert not leak.is_within_noise

    def test_noise_is_no_leak(self) -> None:
        """Nor is memory that is given back."""
        rng = np.random.default_rng(2)
        times = [float(second) for second in range(600)]
        assert slope(times, [100 + rng.normal(0, 3) for _ in times]).is_within_noise
        assert slope(times, [100 - second / 10 for second in times]).is_within_noise

    def test_fifths_compare_medians(self) -> None:
        """One slow window does not count, a slow end does."""
        values = [100.0] * 40 + [95.0] * 10
        assert quintiles(values).ratio == pytest.approx(0.95)
        assert quintiles([1.0, *[100.0] * 49]).ratio == 1
        with pytest.raises(ValueError, match="five"):
            quintiles([1.0] * 4)

    def test_memory_growth_leaves_the_warm_up_out(self) -> None:
        """It is measured from the end of the first tenth."""
        rss = [10, 90, *[100] * 17, 130]
        samples = [Sample(float(at), {"rss_bytes": value}) for at, value in enumerate(rss)]
        assert memory_growth(samples) == 30


def test_a_window_counts_what_was_sent_after_it_settled() -> None:
    """Goodput has right answers only, and so has the latency."""
    answers = [Answer(0.1, 9.0, RIGHT), *[Answer(1.0, 0.2, RIGHT)] * 30]
    window = window_of(CAPACITY, [*answers, *[Answer(1.1, 0.001, REFUSED)] * 60], 3.5)
    assert window.goodput_per_s == pytest.approx(10)
    assert window.offered_per_s == pytest.approx(30)
    assert window.tp99_ms == pytest.approx(200)
    assert window.counts == {RIGHT: 30, REFUSED: 60}
    # Those that were sent before and came within it count, and those that came after it do not.
    late = window_of(CAPACITY, [Answer(0.4, 0.2, RIGHT), *[Answer(3.0, 0.6, RIGHT)] * 6], 3.5)
    assert late.goodput_per_s == pytest.approx(1 / 3)
    assert window_of(CAPACITY, [Answer(1.0, 0.1, REFUSED)], 3.5).tp99_ms == math.inf
    # How late the generator sent is a figure of its own.
    behind = [Answer(1.0, 0.5, RIGHT, 0.4), Answer(1.0, 0.1, REFUSED, 0.3)]
    assert window_of(CAPACITY, behind, 3.5).lag_ms == pytest.approx(400)


def test_a_check_that_failed_is_written_down_and_fails(tmp_path: Path) -> None:
    """run.json, report.md and the exit code agree, and the report can be made again."""
    run = new_run("chaos", "python -m tests.robustness chaos", {"seed": 1})
    checks = [Check("one", "1", "1", True), Check("two", "1", "2", False)]
    phase = {"name": "half-open", "length_s": 1.0, "what": "this", "outcomes": {"right": 7}}
    tables = {"raw": (("a", "b"), [(1.5, 'say "x", y'), (2, "")])}
    with pytest.raises(LoadTestError, match=r"1 broken promise\(s\): two"):
        finish(run, tmp_path, checks, {"phases": [phase]}, tables)
    assert read_table(tmp_path, "raw") == [{"a": "1.5", "b": 'say "x", y'}, {"a": "2", "b": ""}]
    text = (tmp_path / "report.md").read_text()
    assert "| two   |     1 |        2 | **FAIL** |" in text
    assert "- half-open: this" in text
    assert read(tmp_path).checks == checks
    report(tmp_path)
    assert (tmp_path / "report.md").read_text() == text


def test_the_bad_network_delivers_right_bytes_or_ends_the_connection() -> None:
    """Whatever arrives through the proxy is a prefix of what was sent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                try:
                    while data := sock.recv(65_536):
                        sock.sendall(data)
                except OSError:
                    continue

    thread = threading.Thread(target=echo)
    thread.start()
    payload = np.random.default_rng(3).bytes(30_000)
    whole = 0
    with BadNetwork(listener.getsockname()[1], seed=4) as network:
        for _ in range(20):
            received = b""
            try:
                with wire.connect(network.port, 10.0) as sock:
                    sock.sendall(payload)
                    while len(received) < len(payload) and (chunk := sock.recv(65_536)):
                        received += chunk
            except OSError:
                pass
            assert payload.startswith(received)
            whole += received == payload
        assert set(network.counts) >= {"delay", "trickle", "cut", "reset"}
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    assert 0 < whole < 20


def test_the_colours_are_known_to_the_labels() -> None:
    """Every format of every colour has that colour's channel on top."""
    for label in LABELS:
        for suffix in (".jpg", ".png", ".webp", ".bmp"):
            data = np.frombuffer(encoded(label, 64, 48, suffix), np.uint8)
            means = cv2.imdecode(data, cv2.IMREAD_COLOR).mean(axis=(0, 1))
            assert LABELS[2 - int(means.argmax())] == label


def loaded(kind: str, goodput_per_s: float, tp99_ms: float = 500.0) -> LoadWindow:
    return LoadWindow(kind, goodput_per_s, goodput_per_s, tp99_ms, {})


def test_overload_is_judged_against_the_capacity_of_its_round() -> None:
    windows = [loaded(CAPACITY, 100)]
    windows += [loaded(overload(factor), 96) for factor in FACTORS]
    windows += [loaded(CAPACITY, 10)]
    windows += [loaded(overload(factor), 9.6) for factor in FACTORS]
    checks = load_checks(windows, 2)
    assert len(checks) == 3 * len(FACTORS)
    assert all(check.met for check in checks)
    late = [replace(window, lag_ms=150.0) for window in windows]
    unsent = [check.name for check in load_checks(late, 2) if not check.met]
    assert unsent == [
        f"TP99 of how late the load generator sends at {overload(factor)}" for factor in FACTORS
    ]
    for index in (1, 5):
        windows[index] = loaded(overload(FACTORS[0]), windows[index].goodput_per_s - 2, 700)
    verdicts = {check.name: check.met for check in load_checks(windows, 2)}
    broken = [
        "goodput a core at 2 x capacity over that at capacity",
        "TP99 of what is accepted at 2 x capacity",
    ]
    assert [name for name, kept in verdicts.items() if not kept] == broken
    windows[1] = loaded(overload(FACTORS[0]), 0)
    none_right = load_checks(windows, 2)[0]
    assert not none_right.met
    assert none_right.measured == "no right answer in at least one window"
    # Half of the goodput on half of the cores is as much as before.
    halved = [loaded(CAPACITY, 100)]
    halved += [replace(loaded(overload(factor), 50), own_cores=1.0) for factor in FACTORS]
    assert all(check.met for check in load_checks(halved, 2))


def test_fairness_is_judged_by_the_median_and_by_what_all_get() -> None:
    found = Fairness([10, 11, 90], [40, 50, 400], 100, 97.5)
    assert found.ratio == pytest.approx(50 / 11)
    assert [check.met for check in fairness_checks(found)] == [True, True]
    found = Fairness([10, 11, 90], [40, 60, 70], 100, 96)
    assert [check.met for check in fairness_checks(found)] == [False, False]


def test_bulk_callers_and_a_single_one_get_right_answers(port: int, tmp_path: Path) -> None:
    """A short one, with a model that takes no time."""
    images = [KnownImage(encoded(label, 64, 64), label) for label in LABELS]
    arguments = ["--handler", "pipeline", "--calibrate", "off"]
    arguments += write_colour_model(tmp_path).arguments()
    with ServerUnderTest(arguments, port) as server:
        server.wait_ready()
        found = fairness.measure(port, images, 1.0, bulk_images=16)
        assert server.terminate() == 0
    assert found.counts[RIGHT] >= 2 * fairness.BULK_CALLERS * 16
    assert set(found.counts) <= {RIGHT, REFUSED}
    assert found.lone_ms
    assert found.crowded_ms
    assert found.throughput > 0


def test_no_client_of_a_closed_loop_is_without_a_request(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that answers while the loop still sends leaves several free at once."""
    waits: list[tuple[float, int]] = []
    with ServerUnderTest(["--handler", "null"], port) as server:
        server.wait_ready()
        loop = LoadLoop(port, learn_labels(port, [b"no image"], 30.0), 0, 4)
        receive_all = loop._receive_all

        def waiting(wait_s: float) -> None:
            waits.append((wait_s, len(loop._calls)))
            if wait_s > 0:
                os.kill(server.pid, signal.SIGCONT)
            receive_all(wait_s)

        monkeypatch.setattr(loop, "_receive_all", waiting)
        # Otherwise answers may always be there on busy cores, so that the loop never waits.
        os.kill(server.pid, signal.SIGSTOP)
        answers = loop.closed(0.5, 4)
        loop.close()
    window = waits[: max(i for i, (_, calls) in enumerate(waits) if calls == 4)]
    assert {answer.outcome for answer in answers} == {RIGHT}
    assert {calls for wait_s, calls in window if wait_s > 0} == {4}
