"""The commands of the door, in the order of its `--help`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thriftpipe.door.programs import (
    CLIENT,
    CLUSTER,
    LOADTEST,
    OWN,
    PIPELINE,
    SERVE,
    SERVICE,
    TRACE,
    TRACE_COMMAND,
    Program,
)


@dataclass(frozen=True)
class Example:
    """A command line that works, and what it is for."""

    line: str
    purpose: str


@dataclass(frozen=True)
class DoorCommand:
    """A command of the door.

    Attributes:
        section: the title that it stands under.
        help: what it is for, in a few words; what its options are is the program's to say.
        program: what runs it.
        name: what the program calls it; "" for all of the program's commands.
        examples: the most common first.
    """

    section: str
    help: str
    program: Program
    name: str
    examples: Sequence[Example]


_DECIDE = "Decide, with your model and your images"
_SERVE = "Run the server"
_PIPELINE = "Work on a pipeline's TOML file"
_HERE = "This machine and this shell"

FIRST_STEPS = (
    Example("thriftpipe try my.onnx --images photos", "does it suit my model?"),
    Example("thriftpipe bench", "how much faster is the pipeline here?"),
    Example("thriftpipe serve", "start a server, and then:"),
    Example("thriftpipe client classify photo.jpg", "ask it"),
)
"""For who is new."""

COMMANDS = {
    "try": DoorCommand(
        _DECIDE,
        "is it right for my model? an answer within five minutes",
        OWN,
        "try",
        (
            Example("thriftpipe try", "the packaged model and photographs"),
            Example("thriftpipe try my.onnx --images photos", "your model, your images"),
            Example("thriftpipe try my.onnx --labels labels.txt --skip-compare", "answers alone"),
        ),
    ),
    "bench": DoorCommand(
        _DECIDE,
        "compare both handlers on this machine, within 10 minutes",
        LOADTEST,
        "compare",
        (
            Example("thriftpipe bench", "packaged models and photographs, into results/local"),
            Example("thriftpipe bench --workloads my.onnx --img-dir photos --name mine", "yours"),
        ),
    ),
    "compare": DoorCommand(
        _DECIDE,
        "compare chosen handlers, models and settings",
        LOADTEST,
        "compare",
        (
            Example("thriftpipe compare --workloads my.onnx --img-dir photos --name mine", ""),
            Example("thriftpipe compare --variants baseline,pipeline-2w --repeats 9", ""),
            Example("thriftpipe compare --precision bf16 --engine openvino", ""),
        ),
    ),
    "sweep": DoorCommand(
        _DECIDE,
        "throughput and latency by the number of clients",
        LOADTEST,
        "sweep",
        (
            Example("thriftpipe sweep --workload my.onnx --clients 1,4,16,64", ""),
            Example("thriftpipe sweep --variants baseline,pipeline --slo-ms 50", ""),
        ),
    ),
    "tune": DoorCommand(
        _DECIDE,
        "look for better settings of the pipeline within a limit of TP99",
        LOADTEST,
        "tune",
        (
            Example("thriftpipe tune --slo-ms 50", "the best TOML file, and how much it gains"),
            Example("thriftpipe tune --slo-ms 15 --config my.toml --img-dir photos", ""),
        ),
    ),
    "report": DoorCommand(
        _DECIDE,
        "make the report of a measured folder again",
        LOADTEST,
        "report",
        (
            Example("thriftpipe report results/local", "report and plots from the raw data"),
            Example("thriftpipe report diff results/old results/new", "what has changed?"),
        ),
    ),
    "serve": DoorCommand(
        _SERVE,
        "serve a model over Thrift, on port 8095",
        SERVICE,
        SERVE,
        (
            Example("thriftpipe serve", "the pipeline, on 127.0.0.1:8095"),
            Example("thriftpipe serve --model my.onnx --labels labels.txt", "your model"),
            Example("thriftpipe serve --handler baseline", "the locked engine"),
            Example("thriftpipe serve --config my.toml --workers 2 --host 0.0.0.0", ""),
        ),
    ),
    "client": DoorCommand(
        _SERVE,
        "ask a server: classify images, ping, health, info",
        CLIENT,
        "",
        (
            Example("thriftpipe client classify photos --top-k 3", "images, or folders of them"),
            Example("thriftpipe client classify - --json < photo.jpg", "from a pipe, for scripts"),
            Example("thriftpipe client ping", "does it answer?"),
            Example("thriftpipe client health --json", "can it take requests?"),
            Example("thriftpipe client info --host 10.0.0.7", "model, engine and settings"),
            Example("thriftpipe client top", "the same as thriftpipe top"),
        ),
    ),
    "top": DoorCommand(
        _SERVE,
        "watch a server: requests, batches, waits and workers, live",
        CLIENT,
        "top",
        (
            Example("thriftpipe top", "the server on this machine"),
            Example("thriftpipe top --host 10.0.0.7 --once --json", "one look, for scripts"),
        ),
    ),
    "cluster": DoorCommand(
        _SERVE,
        "update a server's replicas on a Ray cluster, or list them",
        CLUSTER,
        "",
        (
            Example(
                "thriftpipe cluster update --cluster 10.0.0.1:6379 --model new.onnx "
                "--canary-images photos",
                "a new model, replica by replica",
            ),
            Example("thriftpipe cluster status --cluster 10.0.0.1:6379", "which runs where?"),
        ),
    ),
    "check": DoorCommand(
        _PIPELINE,
        "find every mistake in a file, and list its settings",
        PIPELINE,
        "check",
        (
            Example("thriftpipe check my.toml", ""),
            Example("thriftpipe check my.toml --engine openvino --set resnet50.max=4", ""),
        ),
    ),
    "show": DoorCommand(
        _PIPELINE,
        "draw its graph, in the terminal or as a picture",
        PIPELINE,
        "show",
        (
            Example("thriftpipe show my.toml", ""),
            Example("thriftpipe show my.toml --output graph.svg", ""),
        ),
    ),
    "run": DoorCommand(
        _PIPELINE,
        "run images through it: answers, and the time of each node",
        PIPELINE,
        "run",
        (
            Example("thriftpipe run my.toml photo.jpg", ""),
            Example("thriftpipe run my.toml photos --repeat 10 --profile --json", ""),
        ),
    ),
    "trace": DoorCommand(
        _PIPELINE,
        "draw a timeline of it under load: instances, batches, waits",
        TRACE,
        TRACE_COMMAND,
        (
            Example("thriftpipe trace my.toml photos -o trace.html", "a page to look at"),
            Example("thriftpipe trace my.toml photos --clients 4 -o trace.json", "for Perfetto"),
        ),
    ),
    "models": DoorCommand(
        _HERE,
        "list packaged models, the engines here, and what is cached",
        OWN,
        "models",
        (Example("thriftpipe models", ""), Example("thriftpipe models --json", "for scripts")),
    ),
    "completion": DoorCommand(
        _HERE,
        "complete commands, options and values with the Tab key",
        OWN,
        "completion",
        (
            Example('eval "$(thriftpipe completion bash)"', "in ~/.bashrc"),
            Example('eval "$(thriftpipe completion zsh)"', "in ~/.zshrc, after compinit"),
            Example("thriftpipe completion fish | source", "in ~/.config/fish/config.fish"),
        ),
    ),
}
