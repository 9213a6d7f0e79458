"""The in-process upper bound: preprocessing and engine with no RPC, no queue and no waiting.

`python -m pipeline.upper_bound --model resnet50 --img_dir DIR` runs a configuration's backends,
each thread taking photographs through every node by itself: in one process with as many threads as
suit the cores, and in several that share the cores, since one interpreter does not keep many
cores busy. The best counts, and what a service on the same host reaches is a share of it.
`--part engine` runs the model alone, on images that are prepared before the clock starts; `--part
decode` runs what stands before it; both in one process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from interfaces.command_line import Parser
from interfaces.extras import packages_of
from interfaces.garbage import none_while_importing
from interfaces.kinds import COUNTS, DURATION, TEXT, one_of
from interfaces.options import REQUIRED, Option, options_of, picked, settings_from
from interfaces.upper_bound import UpperBound

with packages_of("server"), none_while_importing():
    from engine.cpu.cores import available_cores
    from engine.errors import EngineError
    from pipeline.errors import PipelineConfigError
    from pipeline.handler_document import OPTIONS as OF_SERVICE
    from pipeline.image_files import usable_images
    from pipeline.upper_bound.processes import measure_processes, process_counts
    from pipeline.upper_bound.threads import ALL, PARTS, measure_threads
    from service.errors import ConfigurationError
    from service.handlers.handler_settings import HandlerSettings

OPTIONS = (
    Option("img_dir", TEXT, REQUIRED, "folder of images", "DIR"),
    *picked(options_of(HandlerSettings), OF_SERVICE),
    Option("part", one_of(PARTS), ALL, "what is measured"),
    Option("duration_s", DURATION, 5.0, "for each batch size"),
    Option("batch_sizes", COUNTS, "1,2,4", "tried one after the other"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print one JSON line."""
    parser = Parser(
        prog="python -m pipeline.upper_bound", description=__doc__, writes_underscores=True
    )
    for described in OPTIONS:
        parser.add(described)
    options = parser.parse(arguments)
    settings = settings_from(HandlerSettings, options)
    try:
        files = usable_images(
            [Path(options.img_dir)],
            decodes=True,
            skip_bad=options.skip_bad_images,
            tell=lambda line: print(line, file=sys.stderr),  # noqa: T201 (a command line)
            recursive=False,
        )
        images = [path.read_bytes() for path in files]
        sizes = options.batch_sizes
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
