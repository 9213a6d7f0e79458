"""The sides as processes of the test's."""

from __future__ import annotations

import time
from types import TracebackType

from interfaces.messages import from_json, to_json
from loadtest.errors import LoadTestError
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
        starts_again: whether a case in which the process ends is run once more, in a new one:
            torchpipe's threads have been seen to abort, at chance.

    Raises:
        SideError: it does not start, and why.
    """

    def __init__(self, python: str, module: str, *, starts_again: bool = False) -> None:
        self._name = module
        self._starts_again = starts_again
        self._command = [python, "-m", "tests.parity.side", module]
        self._process = self._start()

    def _start(self) -> ChildProcess:
        process = ChildProcess(self._command, f"{self._name}'s side", merge_stderr=False)
        try:
            ready = self._answer(process, _START_LIMIT_S)
            if not isinstance(ready, Ready):
                raise SideError(f"{self._name} does not start: {ready}")
        except BaseException:
            process.close()
            raise
        return process

    def run(self, case: Case) -> Outcome:
        """The case's outcome.

        Raises:
            SideError: it has none: the process is gone, or does not answer.
        """
        try:
            return self._ask(case)
        except SideError:
            # The next case shall not fail, too.
            self._process.close()
            self._process = self._start()
            if not self._starts_again:
                raise
        return self._ask(case)

    def _ask(self, case: Case) -> Outcome:
        self._process.write_line(to_json(case))
        outcome = self._answer(self._process, _CASE_LIMIT_S)
        if not isinstance(outcome, Outcome):
            raise SideError(f"{self._name}: {outcome}")
        return outcome

    @staticmethod
    def _answer(process: ChildProcess, limit_s: float) -> Ready | Outcome | Broken:
        overdue = f"no answer within {limit_s:g} s"
        try:
            line = process.next_line(time.monotonic() + limit_s, overdue)
        except LoadTestError as error:
            raise SideError(str(error)) from error
        if line is None:
            raise SideError(process.ended())
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
