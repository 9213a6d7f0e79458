"""The sides as processes of the test's."""

from __future__ import annotations

import time
from types import TracebackType

from interfaces.messages import from_json, to_json
from loadtest.processes.child_process import ChildProcess
from tests.parity.messages import Broken, Case, Outcome, Ready

# torchpipe compiles its core at its first import, which takes minutes.
_START_LIMIT_S = 1800.0
_CASE_LIMIT_S = 60.0

# Set by `make test-parity`: the interpreter of torchpipe's environment, which must then work.
REFERENCE_PYTHON = "THRIFTPIPE_REFERENCE_PYTHON"
REFERENCE = "torchpipe"
OURS = "thriftpipe.torchpipe"


class SideError(Exception):
    """A side does not start, has ended, or does not answer."""


class SideProcess:
    """A side, which ends with the context.

    Args:
        python: the interpreter that has the runtime.
        module: the runtime's name.

    Raises:
        SideError: it does not start, and why.
    """

    def __init__(self, python: str, module: str) -> None:
        self._name = module
        command = [python, "-m", "tests.parity.side", module]
        self._process = ChildProcess(command, f"{module}'s side", merge_stderr=False)
        try:
            ready = self._answer(_START_LIMIT_S)
            if not isinstance(ready, Ready):
                raise SideError(f"{module} does not start: {ready}")
            self.versions = ready.versions
        except BaseException:
            self._process.close()
            raise

    def run(self, case: Case) -> Outcome:
        """The case's outcome.

        Raises:
            SideError: it has none: the process is gone, or does not answer.
        """
        self._process.write_line(to_json(case))
        outcome = self._answer(_CASE_LIMIT_S)
        if not isinstance(outcome, Outcome):
            raise SideError(f"{self._name}: {outcome}")
        return outcome

    def _answer(self, limit_s: float) -> Ready | Outcome | Broken:
        line = self._process.next_line(
            time.monotonic() + limit_s, f"no answer within {limit_s:g} s"
        )
        if line is None:
            raise SideError(self._process.ended())
        answer: Ready | Outcome | Broken = from_json(line, [Ready, Outcome, Broken])
        return answer

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.close()
