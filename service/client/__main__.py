"""`python -m service.client`."""

import sys

from service.client.client_command import main

if __name__ == "__main__":
    sys.exit(main())
