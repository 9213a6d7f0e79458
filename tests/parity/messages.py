"""What a side is asked and answers, a line of JSON each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

# As `values.to_plain` writes them.
PlainItem: TypeAlias = dict[str, Any]

SINGLE = "single"
LIST = "list"
EVENTS = "events"


@dataclass(frozen=True)
class Call:
    """One call of the pipe.

    Attributes:
        items: what it is called with.
        kind: "single" for one item as a dictionary, "list" for a list of items, "events" for
            items that are sent one by one, each with an event, before the first is waited for.
    """

    items: list[PlainItem]
    kind: str = SINGLE


@dataclass(frozen=True)
class Case:
    """A pipe, and what it is called with.

    Attributes:
        document: nodes and their settings. `@` in a name stands for a text of which each case has
            its own: torchpipe's names of nodes are unique in a process.
        calls: one after the other.
    """

    document: dict[str, Any]
    calls: list[Call] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """What a call did.

    Attributes:
        items: those of the call, as they are behind it, without what is of one runtime alone.
        raised: what the call raised, as "Kind: text"; None if nothing.
    """

    items: list[PlainItem]
    raised: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a case did.

    Attributes:
        answers: of its calls.
        refused: what opening the pipe raised, if it did; there are no answers then.
    """

    answers: list[Answer]
    refused: str | None = None


@dataclass(frozen=True)
class Ready:
    """The side has started, with what versions."""

    versions: dict[str, str]


@dataclass(frozen=True)
class Broken:
    """The side cannot go on, and why."""

    reason: str
