"""`python -m service`."""

from service.cli import main
from service.process import leave

if __name__ == "__main__":
    leave(main())
