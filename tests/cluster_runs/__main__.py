"""`python -m tests.cluster_runs`."""

import sys

from tests.cluster_runs.command_line import main

if __name__ == "__main__":
    sys.exit(main())
