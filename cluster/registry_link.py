"""The registry's actor: found, or started where there is none."""

from __future__ import annotations

import logging
from typing import Any

import ray

from cluster.ray_errors import asking, in_words
from cluster.ray_names import NAMESPACE, REGISTRY
from cluster.registry import Registry

_log = logging.getLogger(__name__)

# More than front ends and replicas that ask at once.
_MOST_CALLS = 100_000
# Ray's own resource of the head's node, where Serve's controller is, too: with any other node the
# registry would be away until Ray takes that for dead, just when front ends need to hear of what
# comes in its place.
_HEAD, _A_BIT = "node:__internal_head__", 0.001


class RegistryLink:
    """Calls the registry; one that has ended is restarted."""

    def __init__(self) -> None:
        self._actor: Any = None

    def call(self, method: str, *arguments: Any, timeout_s: float) -> Any:
        """What a method of `Registry` gives.

        Raises:
            ConnectionError: it does not answer in time, or Ray does not.
        """
        if not ray.is_initialized():
            # Ray would start one on this machine.
            raise ConnectionError("the registry does not answer: Ray is not connected")
        try:
            if self._actor is None:
                self._actor = _actor()
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=timeout_s)
        # Whatever it is, the registry cannot be had just now.
        except (ray.exceptions.RayError, ConnectionError, ValueError, RuntimeError) as error:
            self._actor = None
            _log.debug("the registry does not answer", exc_info=True)
            raise ConnectionError(f"the registry does not answer: {in_words(error)}") from error

    def forget(self) -> None:
        """Look for it anew with the next call, as after a new connection to Ray."""
        self._actor = None

    def end(self) -> None:
        """No replica and no front end needs it any more."""
        if self._actor is not None:
            with asking("the registry"):
                ray.kill(self._actor)


def _actor() -> Any:
    return (
        ray.remote(Registry)
        .options(
            name=REGISTRY,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            resources={_HEAD: _A_BIT},
            max_restarts=-1,
            max_concurrency=_MOST_CALLS,
        )
        .remote()
    )
