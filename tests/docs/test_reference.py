"""docs/reference-configuration.md is what the code says."""

import subprocess
import sys

from docs.tools.reference import PAGE

# In a process of its own: other tests register operators of their own.
_PRINT = "from docs.tools.reference import reference; print(reference(), end='')"


def test_the_reference_is_up_to_date() -> None:
    command = [sys.executable, "-c", _PRINT]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert PAGE.read_text("utf-8") == printed, "run: python docs/tools/reference.py"
