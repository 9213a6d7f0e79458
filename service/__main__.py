"""`python -m service`."""

import logging
import os
import sys

from service.cli import main

if __name__ == "__main__":
    code = main()
    # Everything is closed by now. The interpreter is not taken down around what is left: threads
    # that native libraries keep, and calls that were cut off, may crash a process that ends well.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
