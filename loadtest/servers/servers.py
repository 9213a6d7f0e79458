"""The servers of a workload's variants: a fresh one for every use, or all at once and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from loadtest.errors import LoadTestError
from loadtest.load.rpc import ServerIdentity, server_identity
from loadtest.servers.programs import server_command
from loadtest.servers.server_process import ServerProcess, require_free_port
from loadtest.servers.variants import HOST, Variant, Workload
from loadtest.settings import ServerOptions


@dataclass(frozen=True)
class Serving:
    """A server that is ready."""

    process: ServerProcess
    port: int
    identity: ServerIdentity


class Servers:
    """Starts servers and knows which of them run; the context stops those that are left.

    Args:
        workload: the model that all of them serve.
        options: how they run. The first server gets its port; servers that run at the same time
            get the ports behind it.
    """

    def __init__(self, workload: Workload, options: ServerOptions) -> None:
        self._workload = workload
        self._options = options
        self._kept: dict[str, ServerProcess] = {}
        self._ready: dict[str, Serving | LoadTestError] = {}
        self._stack = ExitStack()

    def start(self, variants: Sequence[Variant]) -> None:
        """Start servers that stay until the end, all at the same time, each on its own port.

        The failure of a server is raised by `serving`, so that the others can be used.
        """
        started = []
        for variant in variants:
            options = self._next_options()
            process = self._stack.enter_context(self._process(variant, options))
            self._kept[variant.name] = process
            started.append((variant, process, options))
        for variant, process, options in started:
            try:
                self._ready[variant.name] = _when_ready(variant, process, options)
            except LoadTestError as error:
                self._ready[variant.name] = error

    @contextmanager
    def serving(self, variant: Variant) -> Iterator[Serving]:
        """The variant's server for the block: the kept one, or else a fresh one that ends with it.

        Raises:
            LoadTestError: it does not start, is not what was asked for, or does not stop as it
                should.
        """
        kept = self._ready.get(variant.name)
        if isinstance(kept, LoadTestError):
            raise kept
        if kept is not None:
            try:
                kept.process.require_alive()
                yield kept
            except LoadTestError as error:
                # `stop` must not ask it to stop as a sound server would.
                self._ready[variant.name] = error
                raise
            return
        options = self._next_options()
        with self._process(variant, options) as process:
            yield _when_ready(variant, process, options)
            process.stop()

    def rename(self, old: str, new: str) -> None:
        """The variant has another name from now on."""
        if old in self._kept:
            self._kept[new] = self._kept.pop(old)
            self._ready[new] = self._ready.pop(old)

    def stop(self) -> None:
        """Stop the servers that are left, as an operator would.

        Raises:
            LoadTestError: one of them does not stop as it should.
        """
        for name, serving in self._ready.items():
            if isinstance(serving, Serving):
                self._kept[name].stop()
        self._stack.close()
        self._kept.clear()
        self._ready.clear()

    def _next_options(self) -> ServerOptions:
        options = replace(self._options, port=self._options.port + len(self._kept))
        require_free_port(HOST, options.port)
        return options

    def _process(self, variant: Variant, options: ServerOptions) -> ServerProcess:
        command = server_command(variant, self._workload, options)
        return ServerProcess(command, f"the {variant.name} server", options.ready_timeout_s)

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()


def _when_ready(variant: Variant, process: ServerProcess, options: ServerOptions) -> Serving:
    process.wait_ready()
    return Serving(process, options.port, check_identity(process, variant, options))


def check_identity(
    server: ServerProcess, variant: Variant, options: ServerOptions
) -> ServerIdentity:
    """Make sure that the server just started is the one that answers, and is what was asked for.

    Raises:
        LoadTestError: another process answers, or another handler, engine or precision runs.
    """
    identity = server_identity(HOST, options.port)
    if identity.root_pid != server.pid:
        raise LoadTestError(
            f"process {identity.root_pid} answers on port {options.port}, "
            f"but the {variant.name} server is process {server.pid}; stop the other one"
        )
    wanted = {"handler": variant.handler, "precision": options.precision}
    if options.engine != "auto":
        wanted["engine"] = options.engine
    for what, value in wanted.items():
        if getattr(identity, what) != value:
            raise LoadTestError(
                f"the {variant.name} server runs {what} {getattr(identity, what)!r}, "
                f"asked for {value!r}"
            )
    return identity
