"""Two servers behind HAProxy, with the configuration that is shipped."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from interfaces.service import PORT
from service.client import Client, ClientError, ConnectionFailedError
from service.options.server_arguments import parse_arguments
from service.options.validation import server_settings
from service.wire import transport
from tests.deploy.haproxy import CONFIGURATION, Balancer
from tests.deploy.needs import needs_haproxy
from tests.deploy.networks import Network, loopback, namespaces
from tests.serving import TIMEOUT_S, ServerProcess

KEEPALIVED = CONFIGURATION.with_name("keepalived.conf")
CLIENTS = 6
ANSWERS = 200

# Stands where the pipeline's handler is looked for: an image b"3 ..." is of class 3.
CHECKED_HANDLER = """
import numpy as np
from service.handlers.outcomes import Scores
from service.handlers.null import NUM_CLASSES, NullHandler

class CheckedHandler(NullHandler):
    def classify(self, images, deadline, *more):
        return [self.scores(image.partition(b" ")[0]) for image in images]
    def scores(self, class_id):
        if not class_id.isdigit():
            # What the server warms up with.
            return self._scores
        probabilities = np.zeros(NUM_CLASSES, dtype=np.float32)
        probabilities[int(class_id)] = 1.0
        return Scores(probabilities)

def create_handler(settings):
    return CheckedHandler()
"""


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which servers get that handler."""
    folder = tmp_path_factory.mktemp("handler")
    (folder / "pipeline").mkdir()
    (folder / "pipeline" / "__init__.py").touch()
    (folder / "pipeline" / "handler.py").write_text(CHECKED_HANDLER)
    return folder


@pytest.fixture(params=["loopback", "namespaces"])
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        if request.param == "loopback":
            found = stack.enter_context(loopback(tmp_path))
        else:
            try:
                found = stack.enter_context(namespaces(CONFIGURATION))
            except OSError as error:
                pytest.skip(f"no network namespaces here: {error}")
        yield found


class Load:
    """Clients that ask, without a pause, for classes that they know."""

    def __init__(self, network: Network, labels: list[str]) -> None:
        self._network = network
        self._labels = labels
        self._done = threading.Event()
        self._answers = threading.Semaphore(0)
        self.wrong: list[str] = []
        self.failures: list[ClientError] = []
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        self._network.enter()
        with Client(*self._network.front) as client:
            class_id = 100 * number
            while not self._done.is_set():
                class_id = (class_id + 1) % len(self._labels)
                try:
                    found = client.classify(f"{class_id} {number}".encode())
                except ClientError as error:
                    self.failures.append(error)
                    continue
                if (found.class_id, found.label) != (class_id, self._labels[class_id]):
                    self.wrong.append(f"{found} instead of {class_id}")
                self._answers.release()

    def wait_for_answers(self) -> None:
        """Wait until clients have got so many more."""
        while self._answers.acquire(blocking=False):
            pass
        for _ in range(ANSWERS):
            assert self._answers.acquire(timeout=TIMEOUT_S), self.failures[-1:]

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()


class Deployment:
    """HAProxy and the two servers."""

    def __init__(self, network: Network, handler: Path, stack: ExitStack) -> None:
        self._network = network
        self._handler = handler
        self._stack = stack
        with ThreadPoolExecutor() as starting:
            self.servers = dict(
                zip(network.servers, starting.map(self.start, network.servers), strict=True)
            )
        self.balancer = stack.enter_context(
            Balancer(network.configuration, network.own_page, network.command(""))
        )

    def start(self, name: str) -> ServerProcess:
        """A server that serves, and whose log is read."""
        network = self._network
        server = ServerProcess(
            (
                # On a busy machine a few clients are an overload.
                *("-m", "service", "--workers", "1", "--max-queue-ms", "0"),
                *("--drain-delay-s", str(network.drain_delay_s)),
                *("--host", network.servers[name], "--port", str(network.port)),
                *("--metrics-host", network.servers[name]),
                *("--metrics-port", str(network.metrics_port)),
            ),
            self._handler,
            before=network.command(name),
        )
        self._stack.callback(server.close)
        server.read_until("ready: ")
        return server

    def stop(self, name: str) -> int:
        """SIGTERM, and the exit code."""
        self.servers[name].process.terminate()
        return self.servers[name].wait()


@contextmanager
def deployed(network: Network, handler: Path) -> Iterator[Deployment]:
    with ExitStack() as stack:
        yield Deployment(network, handler, stack)


def own_metrics(network: Network) -> str:
    """HAProxy's, asked for from its own host."""

    def ask() -> str:
        network.enter()
        connection = HTTPConnection(*network.own_page, timeout=TIMEOUT_S)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(ask).result()


@needs_haproxy
def test_a_server_drains_comes_back_and_another_dies_under_load(
    network: Network, handler: Path, imagenet_labels: list[str]
) -> None:
    with deployed(network, handler) as deployment:
        load = Load(network, imagenet_labels)
        try:
            load.wait_for_answers()
            assert deployment.stop("a") == 0
            seen = deployment.balancer.seen("a", "DOWN")
            # Where it has no time to see that, connections are refused, and go to the other one.
            assert network.namespaces or "code: 503" in seen
            load.wait_for_answers()
            # What it costs to update one server after the other: nothing.
            assert load.failures == []
            deployment.servers["a"] = deployment.start("a")
            deployment.balancer.seen("a", "UP")
            assert load.failures == []
            deployment.servers["b"].process.send_signal(signal.SIGKILL)
            deployment.balancer.seen("b", "DOWN")
            load.wait_for_answers()
            metrics = own_metrics(network)
        finally:
            load.stop()
    assert load.wrong == []
    # What was under way there, at most, and each is told as that.
    assert len(load.failures) <= CLIENTS
    assert all(isinstance(error, ConnectionFailedError) for error in load.failures)
    for name, state, number in (("a", "UP", 1), ("b", "DOWN", 1)):
        series = f'haproxy_server_status{{proxy="servers",server="{name}",state="{state}"}}'
        assert f"{series} {number}\n" in metrics


@needs_haproxy
def test_haproxy_takes_the_configuration_without_a_warning() -> None:
    done = subprocess.run(
        ["haproxy", "-c", "-dW", "-f", CONFIGURATION], capture_output=True, text=True
    )
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("mistake", [False, True])
def test_keepalived_takes_its_configuration(mistake: bool, tmp_path: Path) -> None:
    if shutil.which("keepalived") is None:
        pytest.skip("Debian's package keepalived has it")
    text = KEEPALIVED.read_text()
    path = tmp_path / "keepalived.conf"
    path.write_text(text.replace("track_script", "track_scripts") if mistake else text)
    done = subprocess.run(["keepalived", "-t", "-f", path], capture_output=True, text=True)
    # Where all is well, some of its versions end themselves by SIGTERM.
    is_well = done.returncode in (0, -signal.SIGTERM) and not done.stderr + done.stdout
    assert is_well is not mistake, done


def test_keepalived_asks_haproxys_own_page() -> None:
    asked = re.search(r"http://(\S+)(/metrics)", KEEPALIVED.read_text())
    assert asked
    assert f"bind {asked[1]}" in statements()
    assert "prometheus-exporter if { path /metrics }" in CONFIGURATION.read_text()


def statements() -> list[str]:
    """The configuration without comments."""
    lines = (line.partition("#")[0].strip() for line in CONFIGURATION.read_text().splitlines())
    return [line for line in lines if line]


def seconds(name: str, text: str | None = None) -> float:
    """The first time that is given under a name."""
    found = re.search(rf"(?m)\b{name} (\d+)(ms|s)\b", text or "\n".join(statements()))
    assert found, name
    return int(found[1]) / (1000 if found[2] == "ms" else 1)


def defaults() -> Any:
    return server_settings(parse_arguments(["--handler", "null"]))


def test_its_times_fit_those_of_the_server_and_the_client() -> None:
    server, client = defaults(), Client()
    longest_call_s = server.default_timeout_ms / 1000 + server.message_timeout_s
    for side in ("client", "server"):
        # The server ends what idles, so that no call meets a connection that HAProxy is closing.
        assert seconds(f"timeout {side}") > max(server.idle_timeout_s, longest_call_s)
        assert seconds(f"timeout {side}-fin") >= server.default_timeout_ms / 1000
        letters = "cli" if side == "client" else "srv"
        assert seconds(f"{letters}tcpka-idle") == transport._KEEPALIVE_IDLE_S
        assert seconds(f"{letters}tcpka-intvl") == transport._KEEPALIVE_INTERVAL_S
        assert f"{letters}tcpka-cnt {transport._KEEPALIVE_PROBES}" in statements()
    # Servers that are gone are passed by while the client still waits for its reply.
    found = re.search(r"(?m)^retries (\d+)$", "\n".join(statements()))
    assert found
    tries = int(found[1]) + 1
    assert tries * seconds("timeout connect") < client._call_timeout_s
    client.close()


def test_it_asks_the_probe_of_each_server() -> None:
    lines = statements()
    assert {"mode tcp", "balance leastconn", "option httpchk"} <= set(lines)
    assert "http-check send meth GET uri /readyz" in lines
    (per_server,) = (line for line in lines if line.startswith("default-server"))
    assert "port 9095" in per_server
    assert f"bind :{PORT}" in lines
    assert len([line for line in lines if re.fullmatch(rf"server \w+ \S+:{PORT}", line)]) == 2
    # The server knows no PROXY protocol: its header would be taken for a wrong message.
    assert not re.search("send-proxy|accept-proxy", "\n".join(lines))
    # What the file says of --drain-delay-s: two checks that last as long as they may.
    falls = re.search(r"fall (\d+)", per_server)
    assert falls
    noticed_s = seconds("inter", per_server) + seconds("timeout check")
    noticed_s += (int(falls[1]) - 1) * (seconds("fastinter", per_server) + seconds("timeout check"))
    assert noticed_s <= 5
    assert "--drain-delay-s 5" in CONFIGURATION.read_text()
