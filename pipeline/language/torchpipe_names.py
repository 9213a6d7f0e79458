"""What torchpipe's backends, filters and keys become here, as `torchpipe_names.toml` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import MappingProxyType

import tomli

from interfaces.names import shown, unknown_name

BACKEND, FILTER, KEY = "backend", "filter", "key"


class Verdict(Enum):
    """What a name becomes here; the value is the word in the table.

    Attributes:
        HERE: it does the same.
        ALIAS: it is another name of something that is here.
        IGNORED: it is accepted and does nothing.
        INSTEAD: it is refused, with what to use instead.
    """

    HERE = "here"
    ALIAS = "alias"
    IGNORED = "ignored"
    INSTEAD = "instead"


@dataclass(frozen=True)
class TorchpipeName:
    """A row of the table.

    Attributes:
        kind: BACKEND, FILTER or KEY.
        name: as torchpipe spells it.
        verdict: what it becomes here.
        text: of ALIAS the other name, of IGNORED why, of INSTEAD what to use, and of HERE what is
            not the same, or "".
        sources: the file that registers or reads it, by branch: "v0", "main" or both.
        brackets: whether an ignored backend stands around another.
    """

    kind: str
    name: str
    verdict: Verdict
    text: str
    sources: Mapping[str, str]
    brackets: bool = False

    def sentence(self) -> str:
        """The verdict in words, without backticks."""
        words = {
            Verdict.HERE: f"is here; {self.text}" if self.text else "is here",
            Verdict.ALIAS: f"is here, another name of {self.text}",
            Verdict.IGNORED: f"is ignored: {self.text}",
            Verdict.INSTEAD: f"is not supported here: {self.text}",
        }
        return words[self.verdict].replace("`", "")


@cache
def torchpipe_names(kind: str) -> Mapping[str, TorchpipeName]:
    """All rows of a kind by name, in the order of the table."""
    path = Path(__file__).with_name("torchpipe_names.toml")
    document = tomli.loads(path.read_text("utf-8"))
    texts = document["texts"]
    rows = {}
    for name, row in document[f"{kind}s"].items():
        word = next((it.value for it in Verdict if it.value in row), "differs")
        text = row.get(word, "")
        rows[name] = TorchpipeName(
            kind,
            name,
            Verdict.HERE if word == "differs" else Verdict(word),
            texts[text[1:]] if text.startswith("@") else text,
            {branch: row[branch] for branch in ("v0", "main") if branch in row},
            row.get("brackets", False),
        )
    return MappingProxyType(rows)


def why_ignored(name: str, kind: str = KEY) -> str | None:
    """Why a name of torchpipe's changes nothing here; None for any other name."""
    row = torchpipe_names(kind).get(name)
    return row.text.replace("`", "") if row and row.verdict is Verdict.IGNORED else None


def is_refused(name: str) -> bool:
    """Whether it is a backend of torchpipe's that is not supported here."""
    row = torchpipe_names(BACKEND).get(name)
    return row is not None and row.verdict is Verdict.INSTEAD


def is_torchpipe_key(key: str) -> bool:
    """Whether torchpipe reads that key, or has a backend to which it belongs, `Backend::key`."""
    backend = key.partition("::")[0]
    return key in torchpipe_names(KEY) or ("::" in key and backend in torchpipe_names(BACKEND))


def unknown_backend(name: str, known: Iterable[str]) -> str:
    """The message for a backend that is not here."""
    return _message(BACKEND, name, known)


def unknown_filter(name: str, known: Iterable[str]) -> str:
    """The message for a filter that is not here."""
    return _message(FILTER, name, known)


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for a key that is not here."""
    backend, _, last = key.rpartition("::")
    if last in {"backend", "dependency"} and key not in torchpipe_names(KEY):
        return _refusal(KEY, key, f'write it as one expression: backend = "{backend}[...]"')
    return _message(KEY, key, known)


def _message(kind: str, name: str, known: Iterable[str]) -> str:
    row = torchpipe_names(kind).get(name)
    if row is not None and row.verdict in (Verdict.INSTEAD, Verdict.IGNORED):
        return _refusal(kind, name, row.text.replace("`", ""))
    # One that torchpipe does not have is a slip, and the closest name is of use.
    message = unknown_name(kind, name, known)
    if kind == KEY:
        return message
    return (
        f"{message}. One of your own is made known by pipeline.register_{kind}; commands and the "
        "service execute the file of --backends"
    )


def _refusal(kind: str, name: str, advice: str) -> str:
    return f"torchpipe's {kind} {shown(name)} is not supported here: {advice}"
