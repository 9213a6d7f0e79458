"""What is wrong with a document as a whole: keys that are not read, graphs, and jumps in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from interfaces.names import closest_name_hint, shown
from pipeline.backends.assembly import takes_all_keys
from pipeline.backends.map_reduce import Division, Jump
from pipeline.config.node_config import NodeConfig
from pipeline.errors import PipelineInputError
from pipeline.findings import Findings
from pipeline.keys import TASK_RESULT_KEY, TASK_RESULTS_KEY
from pipeline.language.expression import Expression
from pipeline.language.graph import Graph, Place, graph_mistakes, reachable
from pipeline.language.node_tables import LOGICAL_KEYS, physical_name
from pipeline.language.scoped_keys import scoped_to
from pipeline.language.settings import SCHEDULING
from pipeline.language.torchpipe_names import is_torchpipe_key, unknown_key, why_ignored

_SCHEDULING_NAMES = tuple(setting.name for setting in SCHEDULING)
# What share of its characters a slip leaves.
_NEARLY_THE_SAME = 0.8


def judge_unread(
    findings: Findings,
    table: Mapping[str, Any],
    where: str,
    expressions: Iterable[Expression | None],
    known: Collection[str],
    *,
    ignore_unknown_keys: bool,
) -> None:
    """Report the keys that none of the expressions reads.

    Args:
        findings: gets what is found.
        table: what was written, by key.
        where: what messages begin with.
        expressions: None for one that cannot be read.
        known: all keys that some node or backend reads.
        ignore_unknown_keys: as for `read_config`.
    """
    read = [expression for expression in expressions if expression is not None]
    takes_all = any(map(takes_all_keys, read))
    for key in table:
        if key in known or any(scoped_to(key, expression) for expression in read):
            continue
        if takes_all:
            _judge_handed_on(findings, key, where)
        elif (reason := why_ignored(key)) is not None:
            findings.warnings.append(f"{where}: {key} is ignored: {reason}")
        elif ignore_unknown_keys and not is_torchpipe_key(key):
            hint = closest_name_hint(key, known)
            findings.warnings.append(f"{where}: {key} is ignored: no backend reads it{hint}")
        else:
            findings.mistakes.append(f"{where}: {unknown_key(key, known)}")


def _judge_handed_on(findings: Findings, key: str, where: str) -> None:
    """A backend in Python takes any key, also one that was meant for the node."""
    if meant := get_close_matches(key, _SCHEDULING_NAMES, n=1, cutoff=_NEARLY_THE_SAME):
        findings.warnings.append(
            f"{where}: {key} is handed to a backend in Python; did you mean {meant[0]!r}?"
        )


def judge_logical(findings: Findings, name: str, table: Mapping[str, Any]) -> None:
    """Report the keys of a logical node that only its physical node may give."""
    if unused := table.keys() - LOGICAL_KEYS:
        findings.warnings.append(
            f"[{name}] runs the instances of [{physical_name(name)}]; without effect here: "
            f"{', '.join(sorted(unused))}"
        )


def judge_graph(
    findings: Findings,
    nodes: Mapping[str, NodeConfig],
    places: Mapping[str, Place],
    *,
    lines_are_read: bool,
) -> None:
    """Report what is wrong with the lines between nodes, and with their jumps.

    Args:
        findings: gets what is found.
        nodes: those that can be read.
        places: of all nodes.
        lines_are_read: whether all lines can be: one that cannot would make the graph look
            wrong elsewhere, too.
    """
    connected = graph_mistakes(places) if lines_are_read else []
    findings.mistakes += connected
    graph = Graph(places) if lines_are_read and not connected else None
    findings.mistakes += _jump_mistakes(nodes, places, graph)


def _jump_mistakes(
    nodes: Mapping[str, NodeConfig], names: Collection[str], graph: Graph | None
) -> Iterator[str]:
    """A jump leads to a node, at which items can enter and that does not lead back to it.

    What it merges has to come from one end. Without a graph only the first of these can be judged.
    """
    for name, node in nodes.items():
        for backend in node.backends():
            if not issubclass(backend.cls, Jump):
                continue
            target = backend.settings["jump"]
            if target is None:
                yield f"[{name}]: jump is missing: {backend.name} needs the name of a node"
            elif target not in names:
                hint = closest_name_hint(target, names)
                yield f"[{name}] jump = {shown(target)} is no node{hint}"
            elif graph is not None:
                division = backend.cls.division(backend.settings)
                if why := _why_not_to(target, name, graph, nodes, division):
                    yield f"[{name}] jump = {shown(target)}: {why}"


def _why_not_to(
    target: str, name: str, graph: Graph, nodes: Mapping[str, NodeConfig], division: Division
) -> str:
    """Why a node cannot jump to another one; "" where it can."""
    try:
        passed = graph.from_entry(target)
    except PipelineInputError as error:
        return str(error)
    if name in _led_to(target, graph, nodes):
        return f"that way leads back to {name!r}, without an end"
    ends = [end for end in graph.places if end in passed and not graph.places[end].next]
    if len(ends) > 1 and TASK_RESULT_KEY in division.merge_keys:
        return (
            f"that way has several ends ({', '.join(ends)}), and none gives the result to merge; "
            f"join them in one node, or merge {TASK_RESULTS_KEY!r}, their results by node"
        )
    return ""


def _led_to(start: str, graph: Graph, nodes: Mapping[str, NodeConfig]) -> set[str]:
    """All nodes that are reached from there by `next` and by jumps."""

    def following(name: str) -> list[str]:
        jumps = nodes[name].jumps if name in nodes else ()
        return [*graph.places[name].next, *(jump for jump in jumps if jump in graph.places)]

    return reachable(start, following)
