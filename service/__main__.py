"""`python -m service`."""

from service.cli import main
from service.processes.process import leave

if __name__ == "__main__":
    try:
        code = main()
    except SystemExit as stopped:
        # A signal during the start; a model that does not come to an end may still run.
        code = stopped.code if isinstance(stopped.code, int) else 1
    leave(code)
