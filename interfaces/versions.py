"""Versions of what is installed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package; "not installed" where it is missing."""
    return {package: _version(package) for package in packages}


# Finding one out takes half a millisecond, and what runs does not change.
@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
