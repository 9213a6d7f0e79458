"""Where peers run, and the graph that all of them serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from interfaces.peers import ServingGraph
from loadtest.errors import LoadTestError
from loadtest.load.images import LoadImage
from loadtest.measure.peers_settings import PeersSettings, PeerWorkload
from loadtest.processes.child_process import ChildProcess
from loadtest.servers.programs import serving_graph_command
from loadtest.servers.variants import Workload
from loadtest.settings import ServerOptions


@dataclass(frozen=True)
class PeerPlace:
    """Where peers run, and what they serve there.

    Attributes:
        folder: of their environments.
        graph: the file that they serve.
        facts: what it is.
        model: what it was made from, as `--workloads` names it.
        engine: the engine that runs.
        on_gpu: whether it runs on a GPU.
        labels: file with the classes' names.
        probe: an image that tells by its answer that a peer serves.
        options: port, precision and what else servers of a measurement have in common.
    """

    folder: Path
    graph: Path
    facts: ServingGraph
    model: str
    engine: str
    on_gpu: bool
    labels: Path
    probe: LoadImage
    options: ServerOptions


def prepared_place(
    workload: PeerWorkload,
    served: Workload,
    options: ServerOptions,
    settings: PeersSettings,
    folder: Path,
) -> PeerPlace:
    """The place of a workload, whose graph is written into the folder.

    Raises:
        LoadTestError: the graph cannot be made.
    """
    graph = folder / f"{workload.name}.onnx"
    return PeerPlace(
        folder=settings.peers_dir,
        graph=graph,
        facts=_write_graph(serving_graph_command(served, options, graph)),
        model=served.model,
        engine=workload.engine,
        on_gpu=settings.on_gpu,
        labels=_labels(),
        probe=settings.images[0],
        options=options,
    )


def _labels() -> Path:
    """The names of ImageNet's classes as the service has them; it is not imported for them."""
    spec = find_spec("service")
    if spec is None or not spec.submodule_search_locations:
        raise LoadTestError("the package 'service' is not installed")
    return Path(spec.submodule_search_locations[0]) / "imagenet_labels.txt"


def _write_graph(command: Sequence[str]) -> ServingGraph:
    """Write the graph that peers serve; LoadTestError where it cannot be made."""
    found = None
    with ChildProcess(command, "writing the graph for peers") as process:
        while line := process.next_line():
            found = ServingGraph.from_line(line) or found
        if found is None:
            raise LoadTestError(process.ended())
    return found
