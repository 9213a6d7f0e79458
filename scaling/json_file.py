"""Reads the files that measurements and simulations have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scaling.errors import ScalingError


def read_json(path: Path, made_by: str = "") -> Any:
    """What a file holds.

    Args:
        path: the file.
        made_by: the command that makes it.

    Raises:
        ScalingError: there is none, and a command makes it, or it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not made_by:
            raise
        raise ScalingError(f"no {path}: make it with `{made_by}`") from None
    except json.JSONDecodeError as error:
        raise ScalingError(f"{path} is no JSON: {error}") from error
