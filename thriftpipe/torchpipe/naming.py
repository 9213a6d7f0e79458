"""Lends torchpipe's own module names to the package, where torchpipe itself is not installed.

A program whose first line is `import thriftpipe.torchpipe as torchpipe` then keeps its later
`from torchpipe.utils.test import ...` as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType

from thriftpipe.torchpipe.absent import ABSENT, not_here

PACKAGE = "thriftpipe.torchpipe"
# The second is the package that torchpipe main builds on; its names are in `torchpipe`, too.
LENT = ("torchpipe", "omniback")


class _SameModule(Loader):
    """Gives a module of the package under another name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module of the package, imported as usual."""
        del spec
        module = import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run before; importing it under another name has changed its `__spec__`."""
        module.__spec__ = self._spec


def _refuse_absent(name: str) -> None:
    if name in ABSENT:
        raise not_here(name)


class LentNames(MetaPathFinder):
    """Finds `torchpipe` and what is in it.

    It comes before all other finders: they would load a module of the package a second time, under
    its other name.

    Args:
        before_installed: whether also where torchpipe is installed.
    """

    def __init__(self, *, before_installed: bool) -> None:
        self._before_installed = before_installed

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of the package, under the name that is asked for.

        Raises:
            NotHereError: it is a module that cannot exist here.
        """
        del path, target
        if fullname.startswith(f"{PACKAGE}."):
            _refuse_absent(fullname.removeprefix(f"{PACKAGE}."))
        top, dot, rest = fullname.partition(".")
        if top not in LENT or self._is_installed(top):
            return None
        _refuse_absent(rest)
        name = f"{PACKAGE}{dot}{rest}"
        found = find_spec(name)
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, _SameModule(name), is_package=is_package)

    def _is_installed(self, top: str) -> bool:
        """Whether the name belongs to a package of its own."""
        if self._before_installed:
            return False
        imported = sys.modules.get(top)
        if imported is not None:
            return imported.__name__ != PACKAGE
        return PathFinder.find_spec(top) is not None


def lend_names(*, before_installed: bool = False) -> None:
    """Let `import torchpipe` lead to the package from now on.

    Args:
        before_installed: whether also where torchpipe is installed.
    """
    others = [finder for finder in sys.meta_path if not isinstance(finder, LentNames)]
    sys.meta_path[:] = [LentNames(before_installed=before_installed), *others]
