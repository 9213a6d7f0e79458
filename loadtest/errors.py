"""What the commands report in one line."""


class LoadTestError(Exception):
    """A load test that cannot go on. The message is one line for the user."""


class UsageError(LoadTestError):
    """A command line that asks for what cannot be; the exit code is 2."""


class BelowLimitError(LoadTestError):
    """What was measured is not as good as the command line asks; the exit code is 1."""


class NoResultError(LoadTestError):
    """What was measured is kept, and is no result; the exit code is 3."""


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt, it must pass every `except Exception`."""
