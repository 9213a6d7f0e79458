"""What the commands report in one line."""


class LoadTestError(Exception):
    """A load test that cannot go on. The message is one line for the user."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt, it must pass every `except Exception`."""
