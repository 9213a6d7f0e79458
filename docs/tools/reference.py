"""Writes docs/reference-configuration.md from the code: `python docs/tools/reference.py`."""

from __future__ import annotations

from pathlib import Path

from interfaces.options import option_table
from pipeline.commands.operators import operator_reference
from service.options.server_arguments import server_options

PAGE = Path(__file__).parents[1] / "reference-configuration.md"
_TEXT = """\
# Configuration reference

Every option of the service, and every key and operator of a pipeline's file. This page is written
by `python docs/tools/reference.py` from the descriptions in the code; a test fails where it is not
up to date. How they work together is in [Running the server](operations.md), [Choosing instances,
batches and workers](choosing.md) and [the pipeline's language](../pipeline/README.md).

## Options of the service

Of `thriftpipe serve`, and of `python -m service`. What a client can make the server do has a limit,
which is checked before the cost arises. Each refusal says the limit, its flag, and what was given.
`--help` says the same. With several workers images, buffered bytes and connections are counted over
all workers together. Each option may also be a variable, `THRIFTPIPE_MAX_QUEUE`, or a key of the
service's file, `max-queue`: see [options](operations.md#options-command-line-environment-file).

{options}
## A pipeline's file

A table is a node; a key above the first table is a global: it holds for every node that does not
set it. `thriftpipe check FILE.toml` lists the settings that count, and where each comes from, and
`python -m pipeline operators NAME` tells the same of one operator as this page, with an example.
Names of torchpipe that are not here are in [Coming from
torchpipe](coming-from-torchpipe.md#all-names).

{operators}
"""


def reference() -> str:
    """The page."""
    return _TEXT.format(options=option_table(server_options()), operators=operator_reference())


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
