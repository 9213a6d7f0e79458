"""Keeps a front end's replicas up to date, from the registry."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable

from cluster.registry import EXPIRES_AFTER_S, WATCH_S, View
from cluster.registry_link import RegistryLink
from cluster.replica_entry import ReplicaEntry
from cluster.replicas import Replicas
from service.errors import ConfigurationError

_log = logging.getLogger(__name__)

_MARGIN_S = 5.0
# Between attempts to find a registry.
_PAUSE_S = 1.0
# Ray never again tells a process of its actors whose own node has ended, and does not say so.
_RECONNECT_AFTER_S = 20.0


class Directory:
    """Watches the registry in a thread of its own.

    While it does not answer, the front end goes on with the replicas that it knows; so it does
    with those that a new registry has not heard of yet.

    Args:
        registry: the way to it.
        reconnect: connects to Ray anew; ConnectionError or ConfigurationError where that cannot be.
    """

    def __init__(self, registry: RegistryLink, reconnect: Callable[[], None]) -> None:
        self._name = uuid.uuid4().hex
        self._registry = registry
        self._reconnect = reconnect
        self._is_over = threading.Event()
        self._view = View("", -1, (), "")
        self._before: dict[str, ReplicaEntry] = {}
        self._before_until_s = 0.0
        self._thread: threading.Thread | None = None

    def start(self, replicas: Replicas) -> None:
        """Keep these up to date from now on."""
        self._thread = threading.Thread(
            target=self._watch, args=(replicas,), name="directory", daemon=True
        )
        self._thread.start()

    def stop(self) -> int | None:
        """Watch no more; how many other front ends there are, None where that is not known."""
        self._is_over.set()
        try:
            return int(self._registry.call("leave", self._name, timeout_s=_MARGIN_S))
        except ConnectionError as error:
            _log.warning("%s", error)
            return None
        finally:
            if self._thread is not None:
                # A thread that still asks when Ray's connection is closed has Ray end the process.
                self._thread.join(WATCH_S + _MARGIN_S)

    def _watch(self, replicas: Replicas) -> None:
        is_heard = True
        heard_s = time.monotonic()
        link = RegistryLink()
        while not self._is_over.is_set():
            epoch, version = self._view.epoch, self._view.version
            try:
                view: View = link.call(
                    "watch", self._name, epoch, version, timeout_s=WATCH_S + _MARGIN_S
                )
            except ConnectionError as error:
                if is_heard and not self._is_over.is_set():
                    _log.warning("going on with the replicas that are known: %s", error)
                is_heard = False
                self._is_over.wait(_PAUSE_S)
                if time.monotonic() - heard_s > _RECONNECT_AFTER_S and not self._is_over.is_set():
                    self._try_reconnecting()
                    link.forget()
                    heard_s = time.monotonic()
                continue
            if not is_heard:
                _log.info("the registry answers again")
            is_heard = True
            heard_s = time.monotonic()
            self._take(view, replicas)

    def _try_reconnecting(self) -> None:
        try:
            self._reconnect()
        except (ConfigurationError, ConnectionError) as error:
            _log.warning("%s", error)
        self._registry.forget()

    def _take(self, view: View, replicas: Replicas) -> None:
        if view.epoch != self._view.epoch:
            self._before = {entry.name: entry for entry in self._view.entries}
            self._before_until_s = time.monotonic() + EXPIRES_AFTER_S
        told = {entry.name: entry for entry in view.entries}
        if time.monotonic() < self._before_until_s:
            told = {**self._before, **told}
        self._view = view
        if not self._is_over.is_set():
            replicas.update(told.values())
        if view.failure:
            replicas.failed(view.failure)
