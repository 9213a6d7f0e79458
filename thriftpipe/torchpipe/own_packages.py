"""Imports this project's packages before any file of a program's that has the name of one.

torchpipe has an example `pipeline.py`; where that is run, its folder comes first.
"""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).parents[2])

sys.path.insert(0, _ROOT)
try:
    import engine
    import interfaces
    import pipeline
    import service
finally:
    sys.path.remove(_ROOT)

for _package in (engine, interfaces, pipeline, service):
    if not hasattr(_package, "__path__"):
        raise ImportError(
            f"{_package.__name__!r} is {_package.__file__}, and thriftpipe has a package of that "
            "name: import thriftpipe.torchpipe first, or rename the file"
        )
