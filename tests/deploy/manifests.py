"""The manifests for Kubernetes, and what all of them have to keep to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
CONTAINERFILE = ROOT / "deploy" / "Containerfile"
# The first has all that is used: unhealthyPodEvictionPolicy of PodDisruptionBudgets.
VERSIONS = ("1.27", kubernetes_validate.latest_version())
LEAVING_S = 11
"""What all processes of a server need beyond the two times of its drain."""


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one]
