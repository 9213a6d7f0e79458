"""The error of this program's commands."""


class ScalingError(Exception):
    """A result is missing or damaged, or an option cannot work; the message is for the user."""
