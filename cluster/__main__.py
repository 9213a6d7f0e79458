"""`python -m cluster`."""

import sys

from cluster.update_command import main

if __name__ == "__main__":
    sys.exit(main())
