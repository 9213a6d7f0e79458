"""A peer's server: started in its own environment, known by its first right answer."""

from __future__ import annotations

import json
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from interfaces.peers import SETUP_VARIABLE, STARTED_MARK, Peer, Setup
from loadtest.errors import LoadTestError
from loadtest.servers.environments import source_folder
from loadtest.servers.server_process import ServerProcess

# A server that tells nothing has to be asked whether it serves.
_ASK_INTERVAL_S = 0.2


def peer_command(peer: Peer, setup: Setup, python: Path, launch_prefix: Sequence[str]) -> list[str]:
    """The command that serves `setup`."""
    variables = {
        SETUP_VARIABLE: setup.to_variable(),
        "PYTHONPATH": str(source_folder()),
        **peer.environment,
    }
    if peer.needs_libpython:
        variables["LD_LIBRARY_PATH"] = str(sysconfig.get_config_var("LIBDIR"))
    assigned = [f"{name}={value}" for name, value in variables.items()]
    return [*launch_prefix, "env", *assigned, str(python), "-m", peer.module]


class PeerProcess(ServerProcess):
    """A peer that serves for the length of its context.

    Attributes:
        versions: package name to version, as its log says.
        left_behind: what it did not do as it should when it was stopped; "" otherwise.
    """

    def __init__(self, command: Sequence[str], title: str, ready_timeout_s: float) -> None:
        self.versions: dict[str, str] = {}
        self.left_behind = ""
        super().__init__(command, title, ready_timeout_s)

    def on_line(self, line: str) -> None:
        """Keep the versions."""
        if line.startswith(STARTED_MARK):
            self.versions = json.loads(line.removeprefix(STARTED_MARK))

    def wait_answer(self, ask: Callable[[], object]) -> None:
        """Ask until it answers.

        Args:
            ask: raises LoadTestError while there is no answer.

        Raises:
            LoadTestError: it ended before, or the time is over; with what it said last.
        """
        end_s = time.monotonic() + self._ready_timeout_s
        while True:
            try:
                ask()
                return
            except LoadTestError as error:
                if self.exit_code() is not None:
                    raise LoadTestError(self._process.ended(" before it answered")) from error
                if time.monotonic() > end_s:
                    raise LoadTestError(
                        f"{self._process.title} did not answer within {self._ready_timeout_s:g} s "
                        f"(--ready_timeout_s): {error}; its last line: {self._process.last_line}"
                    ) from error
            time.sleep(_ASK_INTERVAL_S)

    def stop(self) -> None:
        """Stop it as an operator would; what remains of it is killed with the context."""
        try:
            self.terminate()
        except LoadTestError as error:
            self.left_behind = str(error)
