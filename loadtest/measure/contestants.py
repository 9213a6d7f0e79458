"""What `peers` measures: variants of this service and peers, served, asked and recorded alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from thriftpy2.thrift import TException

from idl import inference
from interfaces.peers import Peer, Setting, Setup
from loadtest.errors import LoadTestError
from loadtest.load.images import LoadImage
from loadtest.load.rpc import describe
from loadtest.load.wires import THRIFT, RefusedError, http_request, opener
from loadtest.measure.agreement import Answer, ask
from loadtest.measure.peer_place import PeerPlace
from loadtest.measure.sampling import local_server_pid
from loadtest.records import machine
from loadtest.servers.environments import interpreter
from loadtest.servers.peer_process import PeerProcess, peer_command
from loadtest.servers.server_process import ServerProcess, require_free_port
from loadtest.servers.servers import Servers
from loadtest.servers.variants import HOST, Variant, Workload
from loadtest.settings import ServerOptions

_ASK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class QueueLimit:
    """What a server is told to refuse under overload, in the terms that it has.

    Attributes:
        ms: longest time that a request may wait.
        items: how many may wait.
    """

    ms: int
    items: int


@dataclass(frozen=True)
class Running:
    """A server that serves.

    Attributes:
        process: the server.
        record: what result files say of it.
        ask: gives its answers to images sent alone.
    """

    process: ServerProcess
    record: dict[str, Any]
    ask: Callable[[Sequence[LoadImage]], dict[str, Answer]]


class Contestant(Protocol):
    """One row of the tables."""

    name: str
    description: str
    wire: str
    group: str
    """Of several with one group the best is kept; they are settings of one peer."""
    notes: list[str]
    """What else a reader has to know."""

    def serving(self, limit: QueueLimit | None) -> Any:
        """A context manager: a fresh `Running`, which refuses nothing without a limit."""


class OwnVariant:
    """A variant of this project's service.

    Args:
        variant: which one.
        workload: what it serves.
        options: how.
    """

    wire = THRIFT

    def __init__(self, variant: Variant, workload: Workload, options: ServerOptions) -> None:
        self.name = self.group = variant.name
        self.description = variant.description
        self.notes: list[str] = []
        self._variant, self._workload, self._options = variant, workload, options

    @contextmanager
    def serving(self, limit: QueueLimit | None) -> Iterator[Running]:
        """A fresh server for the block; LoadTestError where it fails."""
        variant = self._variant
        if limit is not None:
            # The last one counts.
            words = (*variant.server_args, "--max-queue-ms", str(limit.ms))
            variant = replace(variant, server_args=words)
        with (
            Servers(self._workload, self._options) as servers,
            servers.serving(variant) as serving,
        ):
            record = serving.identity.as_record()
            yield Running(serving.process, record, lambda images: ask(images, serving.port))


class PeerSetting:
    """A peer in one of its settings.

    Args:
        peer: which one.
        setting: how it is set up.
        place: where it runs and what it serves.
    """

    def __init__(self, peer: Peer, setting: Setting, place: PeerPlace) -> None:
        self.group = peer.name
        self.name = f"{self.group}-{setting.name}"
        self.description = f"{peer.description}; {setting.description}"
        self.wire = setting.wire or peer.wire
        self.notes: list[str] = []
        self._peer, self._setting, self._place = peer, setting, place

    @contextmanager
    def serving(self, limit: QueueLimit | None) -> Iterator[Running]:
        """A fresh server for the block, whose processes all end with it.

        Raises:
            LoadTestError: it is not installed, does not answer, or another process does.
        """
        place, options = self._place, self._place.options
        require_free_port(HOST, options.port)
        setup = Setup(
            host=HOST,
            port=options.port,
            graph=str(place.graph.absolute()),
            model=place.model,
            height=place.facts.height,
            width=place.facts.width,
            softmax=place.facts.softmax,
            engine=place.engine,
            precision=options.precision,
            labels=str(place.labels),
            on_gpu=place.on_gpu,
            queue_ms=limit.ms if limit else 0,
            queue_items=limit.items if limit else 0,
            options=self._setting.options,
        )
        python = interpreter(self._peer, place.folder)
        command = peer_command(self._peer, setup, python, options.launch_prefix)
        title = f"the {self.name} server"
        with PeerProcess(command, title, options.ready_timeout_s) as process:
            process.wait_answer(lambda: self._ask([place.probe], options.port))
            if local_server_pid(HOST, options.port, process.pid) is None:
                raise LoadTestError(f"another process than {title} answers on port {options.port}")
            yield Running(
                process, self._record(process), lambda images: self._ask(images, options.port)
            )
            process.stop()
        if process.left_behind:
            self.notes = [str(machine.without_paths(process.left_behind))]

    def _ask(self, images: Sequence[LoadImage], port: int) -> dict[str, Answer]:
        """Its answers to images that are sent alone, one after the other."""
        answers = {}
        try:
            client = opener(self.wire)(HOST, port, _ASK_TIMEOUT_S)
            try:
                for image in images:
                    data = image.path.read_bytes()
                    request = (
                        inference.InferenceParams(uuid=image.name, data=data)
                        if self.wire == THRIFT
                        else http_request(self.wire, data)
                    )
                    said = client.infer_batch(request)
                    answers[image.name] = Answer(said.label, said.score, 1.0)
            finally:
                client.close()
        except (RefusedError, TException, OSError, EOFError, ValueError, LookupError) as error:
            raise LoadTestError(f"the {self.name} server: {describe(error)}") from error
        return answers

    def _record(self, process: PeerProcess) -> dict[str, Any]:
        """What result files say of it, with the names that they have for the service's."""
        place = self._place
        return {
            "handler": self.group,
            "engine": place.engine,
            "precision": place.options.precision,
            "model": place.facts.model,
            "model_sha256": place.facts.model_sha256,
            "config_sha256": "",
            "versions": process.versions,
            "settings": {"wire": self.wire, **self._setting.options},
        }
