"""The in-process upper bound: preprocessing and engine with no RPC, no queue and no waiting.

`python -m pipeline.upper_bound --model resnet50 --img_dir DIR` runs a configuration's backends,
each thread taking photographs through every node by itself: in one process with as many threads as
suit the cores, and in several that share the cores, since one interpreter does not keep many
cores busy. The best counts, and what a service on the same host reaches is a share of it.
`--part engine` runs the model alone, on images that are prepared before the clock starts; `--part
decode` runs what stands before it; both in one process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.cpu.cores import available_cores
from engine.errors import EngineError
from interfaces.upper_bound import UpperBound
from pipeline.errors import PipelineConfigError
from pipeline.image_files import image_files
from pipeline.language.settings import read_floats
from pipeline.upper_bound.processes import measure_processes, process_counts
from pipeline.upper_bound.threads import ALL, PARTS, measure_threads
from service.errors import ConfigurationError
from service.handlers.interface import HandlerSettings


def _parser() -> argparse.ArgumentParser:
    """Each option may be written with underscores or with dashes."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.upper_bound", description=__doc__)

    def add(name: str, **others: Any) -> None:
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        parser.add_argument(*spellings, **others)

    add("img_dir", type=Path, required=True, help="folder of images")
    add("model", help="ONNX file or packaged model (default: resnet50)")
    add("weights", help="state-dict file for the packaged model")
    add("mean", type=read_floats, metavar="R,G,B", help="in 0..255")
    add("std", type=read_floats, metavar="R,G,B", help="in 0..255")
    add("output", metavar="NAME", help="as the service's")
    add("output_activation", metavar="NAME", help="as the service's")
    add("config", help="TOML file (default: the shipped one)")
    add("decode", choices=("cpu", "gpu"), default="cpu", help="as the service's")
    add("part", choices=PARTS, default=ALL, help="what is measured")
    add("engine", default="auto")
    add("precision")
    add("calibration_images", metavar="DIR", help="folder of images for int8")
    add("duration_s", type=float, default=5.0, help="for each batch size")
    add("batch_sizes", default="1,2,4", help="tried one after the other")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print one JSON line."""
    options = _parser().parse_args(arguments)
    settings = HandlerSettings(
        engine=options.engine,
        precision=options.precision,
        model=options.model,
        weights=options.weights,
        config=options.config,
        decode=options.decode,
        mean=options.mean,
        std=options.std,
        output=options.output,
        output_activation=options.output_activation,
        calibration_images=options.calibration_images,
    )
    try:
        files = image_files([options.img_dir], recursive=False)
        images = [path.read_bytes() for path in files]
        sizes = [int(size) for size in options.batch_sizes.split(",")]
        measured = {
            size: measure_threads(settings, images, size, options.duration_s, options.part)
            for size in sizes
        }
        best = max(sizes, key=lambda size: measured[size].images_per_s)
        by_processes = {1: measured[best]}
        if options.part == ALL and not measured[best].on_gpu:
            cores = available_cores()
            for count in process_counts(cores):
                by_processes[count] = measure_processes(
                    settings, images, best, options.duration_s, count, cores
                )
    except (EngineError, PipelineConfigError, ConfigurationError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 (a command line)
        return 2
    fastest = max(by_processes.values(), key=lambda rate: rate.images_per_s)
    result = UpperBound(
        images_per_s=fastest.images_per_s,
        batch_size=best,
        processes=fastest.processes,
        threads=fastest.threads,
        by_batch_size={str(size): rate.images_per_s for size, rate in measured.items()},
        by_processes={str(count): rate.images_per_s for count, rate in by_processes.items()},
    )
    print(result.to_line())  # noqa: T201 (a command line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
