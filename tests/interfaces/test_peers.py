"""The table of peers: each has its module, pinned versions, and settings on known wires."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interfaces.peers import PEERS, SETUP_VARIABLE, Peer, ServingGraph, Setup
from loadtest.load.wires import WIRES

FOLDER = Path(__file__).parents[2] / "peers"
EACH = pytest.mark.parametrize("peer", PEERS, ids=[peer.name for peer in PEERS])


def test_what_a_peer_is_to_serve_arrives_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(
        *("127.0.0.1", 8095, "a.onnx", "a", 224, 192, True, "openvino", "int8", "labels.txt"),
        queue_ms=450,
        options={"batch": 2, "workers": 3},
    )
    monkeypatch.setenv(SETUP_VARIABLE, setup.to_variable())
    assert Setup.from_variable() == setup
    assert setup.workers == 3


def test_a_graph_is_told_in_a_line_among_others() -> None:
    graph = ServingGraph("a.onnx", "ab", 224, 192, softmax=True)
    assert ServingGraph.from_line(graph.to_line()) == graph
    assert ServingGraph.from_line('{"model": "a.onnx"}') is None
    assert ServingGraph.from_line("exporting") is None


@EACH
def test_its_module_is_there(peer: Peer) -> None:
    assert (FOLDER / f"{peer.name}_server.py").is_file()
    assert peer.module == f"peers.{peer.name}_server"


@EACH
def test_all_that_is_installed_is_pinned(peer: Peer) -> None:
    pinned = set()
    if peer.requirements:
        lines = (FOLDER / "constraints" / f"{peer.name}.txt").read_text().splitlines()
        pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    wanted = {re.sub(r"\[.*\]", "", name).lower() for name in peer.requirements}
    assert wanted <= pinned


@EACH
def test_its_settings_have_names_of_their_own_and_known_wires(peer: Peer) -> None:
    for settings in (peer.settings, peer.settings_on_gpu):
        names = [setting.name for setting in settings]
        assert len(set(names)) == len(names)
        assert {setting.wire or peer.wire for setting in settings} <= {*WIRES}
    assert len(peer.settings) in (2, 3)


def test_every_constraints_file_and_module_has_its_line() -> None:
    names = {peer.name for peer in PEERS}
    assert {path.stem for path in (FOLDER / "constraints").glob("*.txt")} <= names
    assert {path.stem.removesuffix("_server") for path in FOLDER.glob("*_server.py")} == names


def test_torchpipe_is_the_one_that_the_runtime_is_measured_beside() -> None:
    pinned = (FOLDER / "constraints" / "torchpipe.txt").read_text()
    wanted = re.search(r"torchpipe==\S+", (FOLDER.parent / "setup.cfg").read_text())
    assert wanted is not None
    assert wanted.group() in pinned.splitlines()
