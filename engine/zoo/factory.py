"""A user's own torch network by its name, `mypkg.module:factory`."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path

from torch import nn

from engine.errors import EngineError
from interfaces.error_text import in_one_line
from interfaces.names import closest_name_hint, shown

_EXAMPLE = "mypkg.module:factory"


def network_of(target: str) -> nn.Module:
    """The network that a name stands for, on the CPU and ready for inference.

    Args:
        target: a module, a colon, and a name in it: of a function or class that is called without
            arguments, or of a network. The module is imported as Python does it, from the current
            folder too; its code runs with all rights of the process.

    Raises:
        EngineError: there is no such module or name, or what it gives is no network.
    """
    module_name, colon, attributes = target.partition(":")
    if not module_name or not colon or not attributes:
        raise EngineError(f"a network is named as {_EXAMPLE}, got {shown(target)}")
    if module_name.endswith(".py"):
        dotted = ".".join(Path(module_name).with_suffix("").parts)
        raise EngineError(
            f"a network is named by its module, from the folder in which it can be imported: "
            f"{dotted}:{attributes}, not {target}"
        )
    found: object
    try:
        found = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise EngineError(f"cannot import {module_name}: {_place(error)}") from error
    for name in attributes.split("."):
        if not hasattr(found, name):
            hint = closest_name_hint(name, [n for n in dir(found) if not n.startswith("_")])
            raise EngineError(f"{target}: there is no {shown(name)}{hint}")
        found = getattr(found, name)
    if not isinstance(found, nn.Module) and callable(found):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise EngineError(f"{target} raised {_place(error)}") from error
    if not isinstance(found, nn.Module):
        raise EngineError(
            f"{target} gave a {type(found).__name__}; expected a torch.nn.Module, or a function or "
            f"class that gives one without arguments"
        )
    return found.cpu().eval()


def _place(error: BaseException) -> str:
    """Kind and first line of an error, and where in whose code it was raised."""
    what = in_one_line(error)
    frames = traceback.extract_tb(error.__traceback__)
    # The first frames are those of the import itself.
    others = [frame for frame in frames if "importlib" not in frame.filename][1:]
    return f"{what} ({others[-1].filename}, line {others[-1].lineno})" if others else what
