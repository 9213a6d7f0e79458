"""`python -m pipeline COMMAND`."""

from pipeline.commands.dispatch import main
from service.processes.process import leave

if __name__ == "__main__":
    # A pager may take its time.
    leave(main(), patience_s=None)
