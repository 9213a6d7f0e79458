"""Pipes that hypothesis makes, with items to call them with."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from tests.parity.messages import EVENTS, LIST, SINGLE, Call, Case
from tests.parity.sides import REFERENCE_PYTHON

_MOST_NODES = 6
# In the whole suite each takes its share of seconds.
_SHARE = 1 if REFERENCE_PYTHON in os.environ else 5
_ALWAYS = ["Identity", "ParityAdd", "ParityMultiply", "ParityNote", "ParityNoResult"]


def examples(count: int) -> settings:
    """So many under `make test-parity`, and a few elsewhere."""
    return settings(max_examples=count // _SHARE)


def numbers(most: int = 4) -> st.SearchStrategy[list[int]]:
    """Data of items; small, so that it often is a multiple of what fails."""
    return st.lists(st.integers(0, 30), min_size=1, max_size=most)


@st.composite
def expressions(draw: st.DrawFn, raises: bool, depth: int = 2) -> str:
    """A backend, or a sequence.

    Args:
        draw: of hypothesis.
        raises: whether a member may raise; otherwise one may stand in for those without a result.
            Not both: in ours it stands in for those that raise, too, see `test_differences`.
        depth: of sequences in sequences.
    """
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from([*_ALWAYS, *(["ParityFail"] if raises else [])]))
    others = draw(st.integers(0, 3))
    # torchpipe cannot open a sequence whose only member is a sequence.
    members = [draw(expressions(raises, depth - 1 if others else 0))]
    for _ in range(others):
        # In torchpipe a sequence raises where a member lacks the result of the one before.
        lacks = members[-1].rstrip("]").endswith("ParityNoResult")
        stands_in = not raises and (lacks or draw(st.integers(0, 2)) == 0)
        members.append(("(or)" if stands_in else "") + draw(expressions(raises, depth - 1)))
    word = draw(st.sampled_from(["S", "Sequential"]))
    return f"{word}[{','.join(members)}]"


@st.composite
def nodes(draw: st.DrawFn, backend: st.SearchStrategy[str]) -> dict[str, Any]:
    """A node: its backends, what they read, and how they are scheduled."""
    largest = draw(st.integers(1, 3))
    return {
        "backend": draw(backend),
        "term": draw(st.integers(1, 9)),
        "factor": draw(st.integers(2, 9)),
        "of": draw(st.integers(2, 5)),
        "largest": largest,
        "instance_num": draw(st.integers(1, 2)),
        "batching_timeout": draw(st.integers(1, 3)) if largest > 1 else 0,
    }


def calls(data: list[int], more: dict[str, Any] | None = None) -> list[Call]:
    """Each item in a call of its own, then all in one, and then all with events."""
    items = [{"data": one, **(more or {})} for one in data]
    return [*(Call([item], SINGLE) for item in items), Call(items, LIST), Call(items, EVENTS)]


@st.composite
def sequences(draw: st.DrawFn) -> Case:
    """One node."""
    return Case(
        {"@only": draw(nodes(expressions(draw(st.booleans()))))},
        calls(draw(numbers()), {"caller": "c"}),
    )


@st.composite
def chains(draw: st.DrawFn) -> Case:
    """Nodes in a row, of which some stand in for those before."""
    count = draw(st.integers(2, 4))
    raises = draw(st.booleans())
    document: dict[str, Any] = {}
    for number in range(count):
        node = draw(nodes(expressions(raises, depth=1)))
        # torchpipe runs such a node in any case, unless it is the last, and may abort.
        if number == count - 1 and not raises and draw(st.booleans()):
            node["or"] = True
        if number + 1 < count:
            node["next"] = f"@n{number + 1}"
        document[f"@n{number}"] = node
    return Case(document, calls(draw(numbers()), {"caller": "c"}))


@st.composite
def networks(draw: st.DrawFn) -> Case:
    """Nodes with forks and joins, one beginning and one end.

    Every node behind the first takes what it needs by a map, from the nodes before it and from
    others that are certainly done.
    """
    count = draw(st.integers(2, _MOST_NODES))
    before: dict[int, list[int]] = {0: []}
    for number in range(1, count):
        others = st.lists(st.integers(0, number - 1), min_size=1, max_size=3, unique=True)
        before[number] = sorted(draw(others))
    ends = [n for n in range(count - 1) if not any(n in found for found in before.values())]
    before[count - 1] = sorted({*before[count - 1], *ends})
    raises = draw(st.booleans())
    document: dict[str, Any] = {}
    for number in range(count):
        sources = before[number]
        taken = {}
        if sources:
            reachable = sorted(_ancestors(before, number) - set(sources))
            more = draw(st.lists(st.sampled_from(reachable), unique=True)) if reachable else []
            first, *rest = draw(st.permutations(sources))
            taken = {first: "result:data"}
            taken |= {one: f"result:from{one}" for one in [*rest, *more]}
        keys = [pair.split(":")[1] for pair in taken.values() if pair != "result:data"]
        combining = st.sampled_from(["ParityCombine", "S[ParityAdd,ParityCombine]"])
        node = draw(nodes(combining if keys else expressions(raises, depth=1)))
        if taken:
            node["map"] = ",".join(f"@n{one}[{pair}]" for one, pair in taken.items())
        if keys:
            node["keys"] = "/".join(keys)
        following = [f"@n{n}" for n, found in before.items() if number in found]
        if following:
            node["next"] = ",".join(following)
        document[f"@n{number}"] = node
    return Case(document, calls(draw(numbers(3))))


def _ancestors(before: dict[int, list[int]], number: int) -> set[int]:
    found: set[int] = set()
    left = list(before[number])
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += before[one]
    return found
