"""`python -m pipeline show|check|run`."""

from pipeline.commands.cli import main
from service.process import leave

if __name__ == "__main__":
    leave(main())
