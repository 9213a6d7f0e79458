"""The client with real servers."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from service.client import (
    AsyncClient,
    Classification,
    Client,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    InternalServerError,
    InvalidImageError,
    InvalidRequestError,
)
from service.client.backoff import delay_s
from service.client.client_command import main
from service.client.images import calls_of_bounded_size, image_bytes
from tests.ports import free_port
from tests.service.client.clients import BOTH, LoopClient
from tests.service.pictures import PICTURE

HOST = "127.0.0.1"


@pytest.fixture(params=[Client, LoopClient], ids=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest, scripted_server: Any) -> Iterator[Any]:
    """One client, and then the other."""
    with request.param(HOST, scripted_server.port) as client:
        yield client


@pytest.fixture
def unused_port() -> int:
    return free_port()


class TestCalls:
    @BOTH
    @pytest.mark.parametrize("transport", ["framed", "unframed"])
    def test_every_method_answers(self, kind: Any, scripted_server: Any, transport: str) -> None:
        with kind(HOST, scripted_server.port, transport=transport) as client:
            client.ping()
            assert client.health().ready
            info = client.server_info()
            assert (info.engine, info.pid) == ("scripted", os.getpid())
            result = client.classify(b"best=3", top_k=2, with_stage_times=True)
        assert (result.class_id, result.label) == (3, "class_3")
        assert result.score == pytest.approx(0.6)
        assert [entry.class_id for entry in result.top_k] == [3, 0]
        assert result.stage_times_ms["infer"] == 2.5

    @pytest.mark.parametrize("transport", ["framed", "unframed"])
    def test_replies_of_every_size_arrive(self, null_server: Any, transport: str) -> None:
        """Up to megabytes; also those that end where a buffer does."""
        with Client(HOST, null_server.port, transport=transport) as client:
            for images, top_k in ((1, 1), (1, 400), *((1, k) for k in range(450, 500)), (1, 1000)):
                outcome = client.classify_batch([b"x"] * images, top_k=top_k)[0]
                assert isinstance(outcome, Classification)
                assert [entry.class_id for entry in outcome.top_k[:1]] == [0]
                assert len(outcome.top_k) == top_k
            for outcome in client.classify_batch([b"x"] * 100, top_k=1000):
                assert isinstance(outcome, Classification)
                assert len({entry.class_id for entry in outcome.top_k}) == 1000

    @pytest.mark.parametrize("transport", ["framed", "unframed"])
    def test_large_replies_arrive_in_an_event_loop(self, null_server: Any, transport: str) -> None:
        with LoopClient(HOST, null_server.port, transport=transport) as client:
            for images, top_k in ((1, 400), (20, 1000), (1, 1)):
                for outcome in client.classify_batch([b"x"] * images, top_k=top_k):
                    assert len({entry.class_id for entry in outcome.top_k}) == top_k

    def test_a_path_bytes_and_files_are_the_same_image(self, client: Any, tmp_path: Path) -> None:
        path = tmp_path / "image"
        path.write_bytes(b"best=2")
        for image in (path, str(path), b"best=2", bytearray(b"best=2"), memoryview(b"best=2")):
            assert client.classify(image).class_id == 2
        with path.open("rb") as file:
            assert client.classify(file).class_id == 2
            assert not file.closed
            # It was read to its end.
            with pytest.raises(InvalidImageError, match="has no bytes"):
                client.classify(file)
        images = [path, io.BytesIO(b"best=3"), b"best=4"]
        assert [result.class_id for result in client.classify_batch(images)] == [2, 3, 4]

    def test_a_failed_image_leaves_its_neighbours_alone(self, client: Any, tmp_path: Path) -> None:
        missing = tmp_path / "none.jpg"
        outcomes = client.classify_batch([b"best=1", b"invalid", missing, b"late", b"best=4"])
        assert isinstance(outcomes[0], Classification)
        assert outcomes[0].class_id == 1
        assert isinstance(outcomes[1], InvalidImageError)
        assert isinstance(outcomes[2], InvalidImageError)
        assert "No such file" in str(outcomes[2])
        assert isinstance(outcomes[3], DeadlineExceededError)
        assert isinstance(outcomes[4], Classification)
        assert outcomes[4].class_id == 4

    def test_errors_have_types_and_name_the_server(self, client: Any, scripted_server: Any) -> None:
        with pytest.raises(InvalidImageError, match=f"{HOST}:{scripted_server.port}: no image"):
            client.classify(b"invalid")
        with pytest.raises(InternalServerError) as caught:
            client.classify(b"broken")
        assert caught.value.error_id in str(caught.value)
        with pytest.raises(InvalidRequestError, match="top_k must be 1 to 5, got 0"):
            client.classify(b"x", top_k=0)

    def test_more_classes_than_there_are_are_all_of_them(self, client: Any, scripted: Any) -> None:
        """The server refuses the first call, and says then how many there are."""
        for top_k in (6, 10**12):
            result = client.classify(b"best=2", top_k=top_k)
            assert [entry.class_id for entry in result.top_k] == [2, 0, 1, 3, 4]
        # A connection that knows does not ask again.
        seen = len(scripted.deadlines)
        assert len(client.classify_batch([b"x", b"y"], top_k=9)[1].top_k) == 5
        assert len(scripted.deadlines) == seen + 1

    @BOTH
    def test_a_server_that_does_not_say_how_many_classes_it_has(
        self, kind: Any, scripted_server: Any
    ) -> None:
        del scripted_server.server._methods[b"server_info"]
        with (
            kind(HOST, scripted_server.port) as client,
            pytest.raises(InvalidRequestError, match="top_k must be 1 to 5, got 6"),
        ):
            client.classify(b"x", top_k=6)

    def test_the_remaining_time_goes_along(self, client: Any, scripted: Any) -> None:
        client.classify(b"x", timeout_s=5)
        deadline = scripted.deadlines[-1]
        assert deadline is not None
        assert 0 < deadline.timeout_ms <= 5000

    @BOTH
    def test_connections_are_used_again_and_a_closed_one_is_noticed(
        self, kind: Any, serve: Any, scripted: Any
    ) -> None:
        with kind(HOST, (first := serve(scripted)).port) as client:
            client.ping()
            kept = client._pool._idle._kept[-1]
            client.ping()
            assert client._pool._idle._kept[-1] is kept
            first.stop()
            with pytest.raises(ConnectionFailedError) as caught:
                client.ping()
            # It was not sent into the connection that the server had closed.
            assert caught.value.refused

    @BOTH
    def test_one_that_was_idle_too_long_is_not_used_again(
        self, kind: Any, scripted_server: Any
    ) -> None:
        with kind(HOST, scripted_server.port, idle_timeout_s=1e-6) as client:
            client.ping()
            kept = client._pool._idle._kept[-1]
            client.ping()
            assert client._pool._idle._kept[-1] is not kept
            assert not kept.sound

    @BOTH
    def test_a_call_beyond_the_pool_waits_no_longer_than_its_time(
        self, kind: Any, scripted_server: Any, scripted: Any
    ) -> None:
        with kind(HOST, scripted_server.port, max_connections=1) as client:
            with ThreadPoolExecutor(1) as threads:
                first = threads.submit(client.classify, b"wait")
                scripted.entered.acquire()
                with pytest.raises(DeadlineExceededError, match="max_connections"):
                    client.ping(timeout_s=0.01)
                scripted.release.set()
                assert first.result().class_id == 0
            client.ping()

    @BOTH
    @pytest.mark.parametrize("first", ["refuses", "is silent"])
    def test_a_name_with_two_addresses_is_reached_through_either(
        self, kind: Any, first: str, serve: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its resolver is a stand-in: no name server is asked here."""
        second = serve()
        look_up = socket.getaddrinfo

        def of_two_hosts(host: str, port: int, *more: Any, **options: Any) -> Any:
            if host != "two-hosts.test":
                return look_up(host, port, *more, **options)
            if options.get("flags"):
                raise socket.gaierror("no number")
            both = (look_up(one, port, *more, **options) for one in ("127.0.0.2", HOST))
            return [address for found in both for address in found]

        monkeypatch.setattr(socket, "getaddrinfo", of_two_hosts)
        with ExitStack() as stack:
            if first == "is silent":
                full = stack.enter_context(
                    socket.create_server(("127.0.0.2", second.port), backlog=0)
                )
                # One waits to be accepted; the kernel leaves others unanswered.
                stack.enter_context(socket.create_connection(full.getsockname()))
            client = stack.enter_context(
                kind("two-hosts.test", second.port, connect_timeout_s=0.5, retries=0)
            )
            client.ping()

    @BOTH
    def test_a_port_without_listener_is_tried_again_then_told(
        self, kind: Any, unused_port: int
    ) -> None:
        message = f"{HOST}:{unused_port}.*no server listens"
        with (
            kind(HOST, unused_port, retries=2) as client,
            pytest.raises(ConnectionFailedError, match=message),
        ):
            client.ping()

    def test_use_after_close(self, client: Any) -> None:
        client.ping()
        client.close()
        client.close()
        with pytest.raises(ClientClosedError, match="is closed"):
            client.ping()

    def test_a_forked_child_cannot_use_its_parents_connections(self, scripted_server: Any) -> None:
        with Client(HOST, scripted_server.port) as client:
            client.ping()
            child = os.fork()
            if child == 0:
                try:
                    client.ping()
                except ClientClosedError:
                    os._exit(0)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            client.ping()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"transport": "http"}, "transport must be framed or unframed, got 'http'"),
            ({"port": 0}, "port must be 1 to 65535"),
            ({"call_timeout_s": 0}, "call_timeout_s must be above 0"),
            ({"connect_timeout_s": float("nan")}, "connect_timeout_s must be above 0"),
            ({"max_connections": 0}, "max_connections must be at least 1"),
            ({"tls_cert": "a"}, "tls_cert and tls_key go together"),
            ({"tls_ca": "/nowhere"}, "tls_ca /nowhere: No such file"),
        ],
    )
    def test_settings_that_cannot_work(self, settings: dict[str, Any], message: str) -> None:
        for kind in (Client, AsyncClient):
            with pytest.raises(ValueError, match=message):
                kind(**settings)


@BOTH
def test_each_of_many_threads_gets_its_own_answer_while_connections_are_cut(
    kind: Any, scripted_server: Any
) -> None:
    """Connections break at any point of a call, and no answer ever reaches another one."""
    chance = random.Random(5)  # noqa: S311 (guards no secret)
    stop = threading.Event()
    right, failed = [], []

    def cut_some() -> None:
        while not stop.wait(0.002):
            connections = scripted_server.server._connections.open()
            if connections:
                chance.choice(connections).cut_off()

    def ask(thread: int) -> None:
        for turn in range(100):
            wanted = (thread + turn) % 5
            try:
                got = client.classify(b"best=%d" % wanted).class_id
            except ConnectionFailedError:
                failed.append(wanted)
            else:
                assert got == wanted
                right.append(wanted)

    with kind(HOST, scripted_server.port, max_connections=4) as client:
        cutter = threading.Thread(target=cut_some)
        cutter.start()
        try:
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(ask, range(8)))
        finally:
            stop.set()
            cutter.join()
    assert len(right) + len(failed) == 800
    assert right


def decode(encoded: bytes) -> npt.NDArray[np.uint8]:
    """As the server does it."""
    pixels: npt.NDArray[np.uint8] = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    return pixels


class TestImages:
    PIXELS = np.random.default_rng(3).integers(0, 256, (7, 9, 3), dtype=np.uint8)

    def test_an_array_arrives_pixel_by_pixel(self) -> None:
        for order, expected in (("bgr", self.PIXELS), ("rgb", self.PIXELS[:, :, ::-1])):
            assert np.array_equal(decode(image_bytes(self.PIXELS, order, 10**6)), expected)

    def test_arrays_and_orders_that_make_no_sense(self) -> None:
        with pytest.raises(ValueError, match=r"shape \(height, width, 3\), got uint8 in \(7, 9\)"):
            image_bytes(self.PIXELS[:, :, 0], "bgr", 10**6)
        with pytest.raises(ValueError, match="got 'gbr'"):
            image_bytes(self.PIXELS, "gbr", 10**6)
        with pytest.raises(TypeError, match="got int"):
            image_bytes(5, "bgr", 10**6)  # type: ignore[arg-type]

    @pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3), (40, 30, 3)])
    def test_arrays_of_every_shape_arrive(self, shape: tuple[int, int, int]) -> None:
        pixels = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)
        for view in (pixels, pixels[::-1, ::-1]):
            assert np.array_equal(decode(image_bytes(view, "bgr", 10**6)), view)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1"])
    def test_an_image_of_pillows_arrives_with_its_own_pixels(self, mode: str) -> None:
        image = PIL.Image.fromarray(self.PIXELS).convert(mode)
        decoded = decode(image_bytes(image, "bgr", 10**6))
        assert np.array_equal(decoded[:, :, ::-1], np.asarray(image.convert("RGB")))

    def test_exif_does_not_turn_an_image_of_pillows(self) -> None:
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        file = io.BytesIO()
        PIL.Image.fromarray(self.PIXELS).save(file, "PNG", exif=exif)
        # The file itself is turned, as every viewer does.
        assert decode(file.getvalue()).shape == (9, 7, 3)
        assert decode(image_bytes(PIL.Image.open(file), "bgr", 10**6)).shape == (7, 9, 3)

    def test_images_of_pillows_that_make_no_sense(self) -> None:
        with pytest.raises(ValueError, match="got mode 'I;16'"):
            image_bytes(PIL.Image.new("I;16", (4, 4)), "bgr", 10**6)
        file = io.BytesIO()
        PIL.Image.fromarray(self.PIXELS).resize((200, 200)).save(file, "JPEG")
        damaged = PIL.Image.open(io.BytesIO(file.getvalue()[:900]))
        with pytest.raises(InvalidImageError, match="Pillow cannot read the image"):
            image_bytes(damaged, "bgr", 10**6)

    def test_file_objects_that_make_no_sense(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"x" * 101)
        with (
            (tmp_path / "a.jpg").open() as text,
            pytest.raises(TypeError, match=r"a.jpg is open as text; open it in binary mode, 'rb'"),
        ):
            image_bytes(text, "bgr", 100)  # type: ignore[arg-type]
        with (
            (tmp_path / "a.jpg").open("rb") as file,
            pytest.raises(InvalidImageError, match="max_request_bytes allows 100"),
        ):
            image_bytes(file, "bgr", 100)
        with pytest.raises(InvalidImageError, match=r"cannot read .*a\.jpg: read of closed"):
            image_bytes(file, "bgr", 100)

    def test_a_pipe_is_read_piece_by_piece(self) -> None:
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            for piece in (b"one, ", b"two"):
                os.write(writer, piece)
                if piece == b"one, ":
                    assert pipe.read(3) == b"one"
            os.close(writer)
            assert image_bytes(pipe, "bgr", 100) == b", two"

    def test_a_pipe_a_folder_and_a_large_file_are_not_read(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "large").write_bytes(bytes(101))
        (tmp_path / "empty").touch()
        for name, reason in (
            ("pipe", "is a named pipe, a file is needed"),
            (".", "is a folder, a file is needed"),
            ("large", "has 101 bytes, max_request_bytes allows 100"),
            ("empty", "is empty"),
        ):
            with pytest.raises(InvalidImageError, match=reason):
                image_bytes(tmp_path / name, "bgr", 100)

    def test_images_are_divided_into_calls(self) -> None:
        sizes = [40, 40, 40, 200, 10, 10, 10]
        calls = [list(call) for call in calls_of_bounded_size(sizes, 2, 100)]
        assert calls == [[0, 1], [2], [3], [4, 5], [6]]


def test_delays_are_random_grow_to_a_limit_and_respect_the_server() -> None:
    first = [delay_s(0) for _ in range(200)]
    assert 0 <= min(first) < max(first) <= 0.05
    assert 0.05 < max(delay_s(9) for _ in range(200)) <= 2
    assert delay_s(0, retry_after_ms=700) >= 0.7


class TestCommand:
    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    def test_it_classifies_folders_and_tells_failures_in_one_line(
        self, scripted_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a.jpg").write_bytes(PICTURE + b"best=3")
        (tmp_path / "b.png").write_bytes(PICTURE + b"best=1")
        (tmp_path / "notes.txt").write_bytes(b"no image")
        port = ("--port", str(scripted_server.port))
        code, out, err = self.run(capsys, "classify", str(tmp_path), *port)
        assert (code, err) == (0, f"left out, as no images: {tmp_path / 'notes.txt'}\n")
        assert [line.split()[1:] for line in out.splitlines()] == [
            ["0.6000", "class_3"],
            ["0.6000", "class_1"],
        ]
        (tmp_path / "c.jpg").write_bytes(PICTURE + b"invalid")
        code, out, err = self.run(capsys, "classify", str(tmp_path), *port, "--json")
        assert code == 1
        assert out.count("\n") == 3
        assert '"label": "class_3"' in out
        assert err.count("\n") == 2
        assert "no image at all" in err

    def test_images_that_cannot_be_used_are_told_before_any_call(
        self, scripted_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        port = ("--port", str(scripted_server.port))
        pixels = np.zeros((40, 40, 3), np.uint8)
        (tmp_path / "a.jpg").write_bytes(PICTURE + b"best=3")
        for suffix in ("jpg", "png", "webp"):
            whole = cv2.imencode(f".{suffix}", pixels)[1].tobytes()
            (tmp_path / f"whole.{suffix}").write_bytes(whole)
            (tmp_path / f"cut.{suffix}").write_bytes(whole[:-9])
        (tmp_path / "head.png").write_bytes(whole[:14])
        (tmp_path / "text.jpg").write_bytes(b"text")
        (tmp_path / "empty.jpg").touch()
        missing = tmp_path / "none.jpg"
        places = (str(tmp_path), str(missing))
        code, out, err = self.run(capsys, "classify", *places, *port)
        assert (code, out) == (2, "")
        *told, last = err.splitlines()
        named = ["cut.jpg", "cut.png", "cut.webp", "empty.jpg", "head.png", "text.jpg", "none.jpg"]
        assert [Path(line.split(": ")[0]).name for line in told] == named
        for words, count in (("a jpeg without its end", 1), ("a png without its end", 1)):
            assert sum(words in line for line in told) == count
        assert last.startswith("error: 7 of 11 images cannot be used; ")
        code, out, err = self.run(capsys, "classify", *places, *port, "--skip-bad-images")
        assert (code, out.count("\n")) == (0, 4)
        assert err.splitlines()[-1] == "skipping 7 of 11 images"

    def test_an_image_on_standard_input(
        self,
        scripted_server: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        port = ("--port", str(scripted_server.port))
        (tmp_path / "a.jpg").write_bytes(PICTURE + b"best=1")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"best=3")))
        code, out, _ = self.run(capsys, "classify", "-", str(tmp_path / "a.jpg"), *port)
        assert code == 0
        assert [line.split()[2] for line in out.splitlines()] == ["class_3", "class_1"]
        leader, terminal = os.openpty()
        with os.fdopen(terminal) as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            code, out, err = self.run(capsys, "classify", "-", *port)
        os.close(leader)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "which is a terminal here" in err

    def test_stage_times_and_more_classes_than_there_are(
        self, scripted_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a.jpg").write_bytes(PICTURE + b"best=3")
        options = ("--port", str(scripted_server.port), "--stage-times", "--top-k", "7")
        code, out, err = self.run(capsys, "classify", str(tmp_path), *options)
        assert (code, err) == (0, "")
        assert len(out.splitlines()) == 6
        assert out.splitlines()[-1].endswith("  ms: decode 0.5, infer 2.5")
        out = self.run(capsys, "classify", str(tmp_path), *options, "--json")[1]
        assert json.loads(out)["stage_times_ms"] == {"decode": 0.5, "infer": 2.5}

    def test_a_note_on_the_model_stands_beside_the_results(
        self,
        scripted: Any,
        serve: Any,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        scripted.note = "labels mean nothing: seeded weights"
        (tmp_path / "a.jpg").write_bytes(PICTURE + b"best=3")
        port = ("--port", str(serve(scripted).port))
        assert "model.onnx: labels mean nothing: seeded weights" in caplog.messages
        for options in ([], ["--json"]):
            code, out, err = self.run(capsys, "classify", str(tmp_path), *port, *options)
            assert (code, err) == (0, "note: labels mean nothing: seeded weights\n")
            assert out.count("\n") == 1
            assert "class_3" in out
        shown = self.run(capsys, "info", *port)[1]
        settings = shown.partition("\nsettings\n")[2].splitlines()
        assert all(line.startswith("  ") for line in settings)
        assert "  note     labels mean nothing: seeded weights" in settings

    def test_ping_health_and_info(
        self, scripted_server: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        port = ("--port", str(scripted_server.port))
        assert self.run(capsys, "ping", *port)[0] == 0
        assert self.run(capsys, "health", *port)[:2] == (0, "ready\n")
        assert "scripted" in self.run(capsys, "info", *port)[1]

    def test_no_server(self, unused_port: int, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = self.run(capsys, "ping", "--port", str(unused_port), "--timeout-s", "60")
        assert (code, err.count("\n")) == (3, 1)
        assert "no server listens" in err

    def test_mistakes_in_the_command_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(capsys, "ping", "--timeout-s", "0")[0] == 2
        with pytest.raises(SystemExit, match="2"):
            main(["clasify", "a.jpg"])
