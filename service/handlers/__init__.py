"""What the service asks of a handler, which handlers there are, and how each is started."""
