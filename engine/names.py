"""Unknown names: say what was given, what is known, and which known name is closest."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown_name(kind: str, given: str, known: Iterable[str]) -> str:
    """An error message for a name that nothing answers to.

    >>> unknown_name("engine", "onxruntime", ["onnxruntime", "openvino"])
    "unknown engine 'onxruntime'; did you mean 'onnxruntime'? Known: onnxruntime, openvino"
    """
    names = sorted(known)
    closest = get_close_matches(given, names, n=1, cutoff=0.6)
    hint = f"; did you mean {closest[0]!r}?" if closest else "."
    return f"unknown {kind} {given!r}{hint} Known: {', '.join(names) or 'none'}"
