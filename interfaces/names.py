"""Unknown names: say what was given, what is known, and which known name is closest."""

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN_CHARACTERS = 200


def shown(value: object) -> str:
    """A value for an error message; of a long one the beginning."""
    return shortened(repr(value))


def shortened(text: str) -> str:
    """A text for an error message; of a long one the beginning."""
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"


def unknown_name(kind: str, given: str, known: Iterable[str]) -> str:
    """An error message for a name that nothing answers to.

    >>> unknown_name("engine", "onxruntime", ["onnxruntime", "openvino"])
    "unknown engine 'onxruntime'; did you mean 'onnxruntime'? Known: onnxruntime, openvino"
    """
    names = sorted(known)
    return (
        f"unknown {kind} {shown(given)}{closest_name_hint(given, names)} Known: {', '.join(names)}"
    )


def closest_name_hint(given: str, known: Iterable[str]) -> str:
    """Text that goes on "; did you mean 'NAME'?" with the closest known name, or ends with "."."""
    # Half of the characters in common: the quick-start's own slip, cpu_posprocess for
    # cpu_posdecoder, is no closer.
    closest = get_close_matches(given, known, n=1, cutoff=0.5)
    return f"; did you mean {closest[0]!r}?" if closest else "."
