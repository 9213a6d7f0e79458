"""One side of the comparison: `python -m tests.parity.side MODULE`.

Both sides run this code and differ in MODULE alone, the runtime under it: `torchpipe`, in an
environment that has nothing of this project, or `thriftpipe.torchpipe`. Asks and answers are lines
of JSON, see `messages`.
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from interfaces.messages import from_json, to_json
from tests.parity.backends import BACKENDS
from tests.parity.messages import (
    EVENTS,
    SINGLE,
    Answer,
    Broken,
    Call,
    Case,
    Outcome,
    PlainItem,
    Ready,
)
from tests.parity.values import from_plain, to_plain

_PREFIX = "parity"
_EVENT_LIMIT_MS = 60000


class Side:
    """Runs cases with a runtime.

    Args:
        module: the runtime's name.
    """

    def __init__(self, module: str) -> None:
        self._runtime = importlib.import_module(module)
        self._numbers = itertools.count()
        for backend in BACKENDS:
            self._runtime.register(_PREFIX.capitalize() + backend.__name__, backend)

    def run(self, case: Case) -> Outcome:
        """Open the case's pipe, and call it."""
        own = f"{_PREFIX}{next(self._numbers)}x"
        try:
            pipe = self._runtime.pipe(_replaced(case.document, "@", own))
        except Exception as error:  # noqa: BLE001 (a refusal is an outcome)
            return Outcome([], _raised(error).replace(own, "@"))
        return _replaced_in(Outcome([self._call(pipe, call, own) for call in case.calls]), own)

    def _call(self, pipe: Any, call: Call, own: str) -> Answer:
        made = [
            {key: from_plain(one) for key, one in _replaced(item, "@", own).items()}
            for item in call.items
        ]
        items = made if call.kind == SINGLE else [self._runtime.Dict(item) for item in made]
        raised = None
        try:
            if call.kind == EVENTS:
                self._send(pipe, items)
            else:
                pipe(items[0] if call.kind == SINGLE else items)
        except Exception as error:  # noqa: BLE001 (what a call raises is its answer)
            raised = _raised(error)
        return Answer([_plain_item(item.items()) for item in items], raised)

    def _send(self, pipe: Any, items: list[Any]) -> None:
        """Send all, and wait for all; raises what the first one to be waited for raised."""
        # The name that torchpipe main's users import events from.
        events = [importlib.import_module("omniback").Event() for _ in items]
        errors: list[Exception] = []
        for item, event in zip(items, events, strict=True):
            item["event"] = event
            pipe(item)
        for event in events:
            try:
                if not event.wait(_EVENT_LIMIT_MS):
                    errors.append(TimeoutError(f"not done within {_EVENT_LIMIT_MS} ms"))
            except Exception as error:  # noqa: BLE001 (what an event raises is its answer)
                errors.append(error)
        if errors:
            raise errors[0]


def _plain_item(pairs: Iterable[tuple[Any, Any]]) -> PlainItem:
    return {str(key): to_plain(one) for key, one in pairs}


def _raised(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"


def _replaced(value: Any, old: str, new: str) -> Any:
    """The value with one text in place of the other, in keys and texts, at any depth."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, dict):
        return {key.replace(old, new): _replaced(one, old, new) for key, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one, old, new) for one in value]
    return value


def _replaced_in(outcome: Outcome, own: str) -> Outcome:
    return Outcome(
        [
            Answer(_replaced(answer.items, own, "@"), _replaced(answer.raised, own, "@"))
            for answer in outcome.answers
        ]
    )


def _versions(module: str) -> dict[str, str]:
    versions = {}
    for name in (module.split(".")[0], "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def serve(module: str) -> None:
    """Run the cases that stdin asks for, until it ends."""
    # What native libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: Ready | Outcome | Broken) -> None:
        answers.write(to_json(message) + "\n")
        answers.flush()

    try:
        side = Side(module)
    except ImportError as error:
        answer(Broken(f"{type(error).__name__}: {error}"))
        return
    answer(Ready(_versions(module)))
    for line in sys.stdin:
        answer(side.run(from_json(line, [Case])))


if __name__ == "__main__":
    serve(sys.argv[1])
    # Without the interpreter's teardown, in which native threads have been seen to abort.
    os._exit(0)
