"""The nodes' graph: which follows which, and which parts of it a filter can skip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from interfaces.names import closest_name_hint, shortened, shown
from pipeline.errors import PipelineInputError
from pipeline.keys import TASK_DATA_KEY


@dataclass(frozen=True)
class Mapped:
    """One entry of a `map`: `source[taken:given]`.

    Attributes:
        source: the node whose item is read; empty where the map leaves it out.
        taken: the key that is read.
        given: the key under which the node with the `map` gets it.
    """

    source: str
    taken: str
    given: str

    def __str__(self) -> str:
        return f"{self.source}[{self.taken}:{self.given}]"


@dataclass(frozen=True)
class Place:
    """A node's place in the graph.

    Attributes:
        next: the nodes that follow it.
        mapping: where its data comes from; empty where its one predecessor hands its item on.
        filter: its filter's name, or None for the default one.
        instances_of: the node whose instances run it, or None where it has its own.
    """

    next: tuple[str, ...] = ()
    mapping: tuple[Mapped, ...] = ()
    filter: str | None = None
    instances_of: str | None = None


class Graph:
    """A graph without cycles.

    Args:
        places: every node's place, in the order of the file, without what `graph_mistakes` finds.

    Attributes:
        predecessors: the nodes before each node.
        roots: the nodes that follow no other.
    """

    def __init__(self, places: Mapping[str, Place]) -> None:
        self.places = places
        before: dict[str, list[str]] = {name: [] for name in places}
        for name, place in places.items():
            for following in place.next:
                before[following].append(name)
        self.predecessors = {name: tuple(others) for name, others in before.items()}
        self.roots = [name for name in places if not before[name]]

    @cached_property
    def is_chain(self) -> bool:
        """Whether every node has one neighbour on each side at most, and nothing special."""
        return all(
            len(place.next) <= 1
            and len(self.predecessors[name]) <= 1
            and not place.mapping
            and place.filter is None
            and place.instances_of is None
            for name, place in self.places.items()
        )

    def from_entry(self, entry: str) -> frozenset[str]:
        """The nodes that an item may pass that enters at `entry`.

        Raises:
            PipelineInputError: one of them joins what it gets with a node that is not among them.
        """
        reached = self.reached(entry)
        for name in reached - {entry}:
            for missing in self._needed(name) - reached:
                raise PipelineInputError(
                    f"an item cannot enter at {entry!r}: node {name!r} behind it also needs what "
                    f"{missing!r} gives"
                )
        return frozenset(reached)

    def serial_part(self, name: str) -> frozenset[str]:
        """`name` and what follows it in a row, up to where the graph forks or joins."""
        part = [name]
        while (
            len(following := self.places[part[-1]].next) == 1
            and len(self.predecessors[following[0]]) == 1
        ):
            part.append(following[0])
        return frozenset(part)

    def independent_part(self, name: str) -> frozenset[str]:
        """The largest part of the graph that can be entered through `name` alone."""
        part = {name}
        grown = True
        while grown:
            around = {following for member in part for following in self.places[member].next}
            more = {other for other in around - part if set(self.predecessors[other]) <= part}
            part |= more
            grown = bool(more)
        return frozenset(part)

    def upstream_first(self) -> list[str]:
        """All nodes, each before those that follow it."""
        return upstream_first({name: place.next for name, place in self.places.items()})

    def _needed(self, name: str) -> set[str]:
        return set(self.predecessors[name]) | {m.source for m in self.places[name].mapping}

    def reached(self, start: str) -> set[str]:
        """`start` and all nodes behind it."""
        return reachable(start, lambda name: self.places[name].next)

    def ancestors(self, name: str) -> set[str]:
        """All nodes before that one."""
        return reachable(name, self.predecessors.__getitem__) - {name}


def upstream_first(following: Mapping[str, Sequence[str]]) -> list[str]:
    """Nodes that form no cycle, by what follows each: each before those that follow it."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name not in seen:
            seen.add(name)
            for other in following[name]:
                visit(other)
            order.append(name)

    for name in following:
        visit(name)
    return order[::-1]


def with_sources(places: Mapping[str, Place]) -> dict[str, Place]:
    """The places with the nodes that their maps leave out.

    That is the node before it; of several, as in torchpipe v0, the first by name.
    """
    before: dict[str, list[str]] = {name: [] for name in places}
    for name, place in sorted(places.items()):
        for following in place.next:
            before.get(following, []).append(name)
    return {
        name: replace(
            place,
            mapping=tuple(
                mapped if mapped.source else replace(mapped, source=before[name][0])
                for mapped in place.mapping
            ),
        )
        if before[name]
        else place
        for name, place in places.items()
    }


def graph_mistakes(places: Mapping[str, Place]) -> list[str]:
    """One message for each mistake in how the nodes are connected.

    These are a `next` that is no node or that closes a cycle, a join without a `map`, a `map` that
    cannot be followed, a root with a `map`, and instances of what is no node. What a wrong `next`
    leads to is judged without it.
    """
    mistakes = []
    following: dict[str, list[str]] = {}
    for name, place in places.items():
        following[name] = [other for other in dict.fromkeys(place.next) if other in places]
        mistakes += [
            f"node {name!r} names next = {shown(other)}, which is no node"
            f"{closest_name_hint(other, places)} Nodes: {', '.join(places)}"
            for other in place.next
            if other not in places
        ]
        if len(set(place.next)) < len(place.next):
            mistakes.append(f"[{name}] next names a node twice: {_list(place.next)}")
    mistakes += [f"nodes form a cycle: {' -> '.join(cycle)}" for cycle in _cut_cycles(following)]
    graph = Graph(
        {name: replace(place, next=tuple(following[name])) for name, place in places.items()}
    )
    for name in places:
        mistakes += _place_mistakes(graph, name)
    return mistakes


def reachable(start: str, neighbours: Callable[[str], Iterable[str]]) -> set[str]:
    """`start`, its neighbours, theirs, and so on."""
    found: set[str] = set()
    ahead = [start]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += neighbours(name)
    return found


def _cut_cycles(following: Mapping[str, list[str]]) -> list[list[str]]:
    """Remove every line that closes a cycle; gives the nodes of each, first and last the same."""
    cycles = []
    finished: set[str] = set()

    def follow(path: list[str]) -> None:
        name = path[-1]
        for other in list(following[name]):
            if other in path:
                cycles.append([*path[path.index(other) :], other])
                following[name].remove(other)
            elif other not in finished:
                follow([*path, other])
        finished.add(name)

    for name in following:
        if name not in finished:
            follow([name])
    return cycles


def _place_mistakes(graph: Graph, name: str) -> Iterator[str]:
    place, before = graph.places[name], graph.predecessors[name]
    if place.instances_of is not None and place.instances_of not in graph.places:
        yield (
            f"[{name}] runs the instances of {shown(place.instances_of)}, which is no node"
            f"{closest_name_hint(place.instances_of, graph.places.keys() - {name})}"
        )
    if not before and place.mapping:
        yield (
            f"[{name}] has a map, but no node names it as its next: a root gets the caller's item "
            "as it is"
        )
    if len(before) > 1 and not place.mapping:
        example = ",".join(f"{other}[result:{other}_result]" for other in before[1:])
        yield (
            f"[{name}] follows several nodes ({_list(before)}) and needs a map that says what "
            f"it takes from each, such as map = '{before[0]}[result:data],{example}'"
        )
    if place.mapping:
        yield from _map_mistakes(graph, name)


def _map_mistakes(graph: Graph, name: str) -> Iterator[str]:
    mapping, ancestors = graph.places[name].mapping, graph.ancestors(name)
    for mapped in mapping:
        if not mapped.source:
            continue  # a root, which has no map at all
        if mapped.source not in graph.places:
            hint = closest_name_hint(mapped.source, graph.places)
            yield f"[{name}] map: {shown(mapped.source)} is no node{hint}"
        elif graph.predecessors[name] and mapped.source not in ancestors:
            yield (
                f"[{name}] map takes {mapped.taken!r} from {mapped.source!r}, which does not "
                f"come before it; before it come: {_list(sorted(ancestors))}"
            )
    if TASK_DATA_KEY not in {mapped.given for mapped in mapping}:
        yield (
            f"[{name}] map gives {_list([m.given for m in mapping])}, and no 'data' for "
            "the backend to work on"
        )


def _list(names: Sequence[str]) -> str:
    return shortened(", ".join(names))
