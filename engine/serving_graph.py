"""`python -m engine.serving_graph`: write the graph that engines for a CPU run, for other servers.

Mean and std are in it, so that its input takes uint8 pixels, N x height x width x 3, and in int8
its products are quantised. A program that serves it serves what this service does.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.cache.atomic_file import write_atomically
from engine.classifier import (
    classifier_input,
    classifier_normalization,
    classifier_output,
    input_size,
)
from engine.cpu.vnni import largest_weight, onednn_max_isa
from engine.errors import EngineError
from engine.int8.cpu_graph import graph_for_cpu
from engine.onnx_graph.activations import SOFTMAX
from engine.options import EngineOptions
from engine.scoring import scoring_of
from engine.zoo import open_model
from interfaces.command_line import Parser
from interfaces.engines import PRECISIONS
from interfaces.image_folder import SKIP_BAD_IMAGES, SKIP_BAD_IMAGES_HELP
from interfaces.kinds import FILE, SWITCH, TEXT, one_of
from interfaces.options import REQUIRED, Option
from interfaces.peers import ServingGraph

_OPTIONS = (
    Option("model", TEXT, REQUIRED, "model of the zoo or ONNX file", "MODEL", is_positional=True),
    Option("output", FILE, REQUIRED, "file to write"),
    Option("precision", one_of(PRECISIONS), "fp32", "int8 quantises, others leave the graph"),
    Option("engine", TEXT, "onnxruntime", "that will run it; openvino obeys ONEDNN_MAX_CPU_ISA"),
    Option("calibration_images", TEXT, None, "folder of images, for int8", "DIR"),
    Option(SKIP_BAD_IMAGES, SWITCH, False, SKIP_BAD_IMAGES_HELP),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; print what the graph is, and return the exit status."""
    parser = Parser(prog="python -m engine.serving_graph", description=__doc__)
    for described in _OPTIONS:
        parser.add(described)
    options = parser.parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = options.calibration_images
    try:
        model = classifier_input(classifier_output(open_model(options.model), None))
        content = graph_for_cpu(
            model.with_uint8_input(classifier_normalization(model, None, None)),
            EngineOptions(
                precision=options.precision,
                calibration_dir=None if folder is None else Path(folder),
                calibration_skips_bad=options.skip_bad_images,
            ),
            largest_weight(max_isa=onednn_max_isa() if options.engine == "openvino" else ""),
        )
        write_atomically(Path(options.output), content, mode=0o644)
        scoring = scoring_of(model)
    except (EngineError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    height, width = input_size(model)
    graph = ServingGraph(model.name, model.sha256, height, width, scoring.activation == SOFTMAX)
    sys.stdout.write(graph.to_line() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
