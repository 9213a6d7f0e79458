"""`python -m tests.robustness`."""

import sys

from tests.robustness.command_line import main

if __name__ == "__main__":
    sys.exit(main())
