"""Runs a program of torchpipe's as it is: `python -m thriftpipe.torchpipe SCRIPT [ARGUMENT...]`.

Whatever imports torchpipe in it gets this package. `-m MODULE` runs a module, such as pytest.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from thriftpipe.torchpipe.naming import lend_names

_USAGE = "usage: python -m thriftpipe.torchpipe (SCRIPT | -m MODULE) [ARGUMENT...]"


def main(arguments: list[str]) -> None:
    """Run it; SystemExit where there is nothing to run."""
    is_module = arguments[:1] == ["-m"]
    what = arguments[1:] if is_module else arguments
    if not what or what[0].startswith("-"):
        raise SystemExit(_USAGE)
    if not is_module and not Path(what[0]).is_file():
        raise SystemExit(f"{_USAGE}\nerror: {what[0]}: no such file")
    lend_names(before_installed=True)
    sys.argv = what
    if is_module:
        runpy.run_module(what[0], run_name="__main__", alter_sys=True)
        return
    sys.path[0] = str(Path(what[0]).resolve().parent)
    runpy.run_path(what[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
