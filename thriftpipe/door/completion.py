"""Scripts with which a shell completes the words of `thriftpipe`."""

from __future__ import annotations

import sys
from argparse import Namespace

from click.shell_completion import get_completion_class

from thriftpipe.door.group import COMPLETION_VARIABLE, NAME, door


def print_script(options: Namespace) -> int:
    """Print the script of a shell."""
    kind = get_completion_class(options.shell)
    assert kind is not None  # noqa: S101 (the options allow the shells that click has)
    sys.stdout.write(kind(door(), {}, NAME, COMPLETION_VARIABLE).source())
    return 0
