"""The nodes' graph: who follows whom, and which parts of it a filter can skip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from engine.names import closest_name_hint
from pipeline.errors import PipelineConfigError, PipelineInputError
from pipeline.keys import TASK_DATA_KEY


@dataclass(frozen=True)
class Mapped:
    """One entry of a `map`: `source[taken:given]`.

    Attributes:
        source: the node whose item is read.
        taken: the key that is read.
        given: the key under which the node with the `map` gets it.
    """

    source: str
    taken: str
    given: str


@dataclass(frozen=True)
class Place:
    """A node's place in the graph.

    Attributes:
        next: the nodes that follow it.
        mapping: where its data comes from; empty where its one predecessor hands its item on.
        filter: its filter's name, or None for the default one.
    """

    next: tuple[str, ...] = ()
    mapping: tuple[Mapped, ...] = ()
    filter: str | None = None


class Graph:
    """A checked graph without cycles.

    Args:
        places: every node's place, in the order of the file.

    Attributes:
        predecessors: the nodes before each node.
        roots: the nodes that follow no other.

    Raises:
        PipelineConfigError: a node that is not there, a cycle, a join without a `map`, a `map`
            that cannot be followed, or a root with a filter or a `map`.
    """

    def __init__(self, places: Mapping[str, Place]) -> None:
        self.places = places
        for name, place in places.items():
            for following in place.next:
                if following not in places:
                    raise PipelineConfigError(
                        f"node {name!r} names next = {following!r}, which is no node"
                        f"{closest_name_hint(following, places)} Nodes: {', '.join(places)}"
                    )
            if len(set(place.next)) < len(place.next):
                raise PipelineConfigError(f"[{name}] next names a node twice: {_list(place.next)}")
        self.predecessors = {
            name: tuple(other for other, place in places.items() if name in place.next)
            for name in places
        }
        self.roots = [name for name in places if not self.predecessors[name]]
        self._check_cycles()
        for name, place in places.items():
            self._check_place(name, place)

    @cached_property
    def is_chain(self) -> bool:
        """Whether every node has one neighbour on each side at most, and nothing special."""
        return all(
            len(place.next) <= 1
            and len(self.predecessors[name]) <= 1
            and not place.mapping
            and place.filter is None
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
        order: list[str] = []

        def visit(name: str) -> None:
            if name not in order:
                for following in self.places[name].next:
                    visit(following)
                order.append(name)

        for name in self.places:
            visit(name)
        return order[::-1]

    def _needed(self, name: str) -> set[str]:
        return set(self.predecessors[name]) | {m.source for m in self.places[name].mapping}

    def reached(self, start: str) -> set[str]:
        """`start` and all nodes behind it."""
        reached: set[str] = set()
        ahead = [start]
        while ahead:
            name = ahead.pop()
            if name not in reached:
                reached.add(name)
                ahead += self.places[name].next
        return reached

    def _check_cycles(self) -> None:
        finished: set[str] = set()

        def follow(path: list[str]) -> None:
            for following in self.places[path[-1]].next:
                if following in path:
                    circle = [*path[path.index(following) :], following]
                    raise PipelineConfigError(f"nodes form a cycle: {' -> '.join(circle)}")
                if following not in finished:
                    follow([*path, following])
            finished.add(path[-1])

        for name in self.places:
            if name not in finished:
                follow([name])

    def _check_place(self, name: str, place: Place) -> None:
        before = self.predecessors[name]
        if not before:
            for key, given in (("filter", place.filter), ("map", place.mapping)):
                if given:
                    raise PipelineConfigError(
                        f"[{name}] has a {key}, but no node names it as its next: a root gets the "
                        "caller's item as it is"
                    )
        if len(before) > 1 and not place.mapping:
            example = ",".join(f"{other}[result:{other}_result]" for other in before[1:])
            raise PipelineConfigError(
                f"[{name}] follows several nodes ({_list(before)}) and needs a map that says what "
                f"it takes from each, such as map = '{before[0]}[result:data],{example}'"
            )
        if not place.mapping:
            return
        ancestors = {other for other in self.places if name in self.reached(other)} - {name}
        for mapped in place.mapping:
            if mapped.source not in self.places:
                hint = closest_name_hint(mapped.source, self.places)
                raise PipelineConfigError(f"[{name}] map: {mapped.source!r} is no node{hint}")
            if mapped.source not in ancestors:
                raise PipelineConfigError(
                    f"[{name}] map takes {mapped.taken!r} from {mapped.source!r}, which does not "
                    f"come before it; before it come: {_list(sorted(ancestors))}"
                )
        if TASK_DATA_KEY not in {mapped.given for mapped in place.mapping}:
            raise PipelineConfigError(
                f"[{name}] map gives {_list([m.given for m in place.mapping])}, and no 'data' for "
                "the backend to work on"
            )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
