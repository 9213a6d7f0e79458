"""Questions to replicas about themselves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from thriftpy2.thrift import TApplicationException

from cluster.hop import HopError, HopTimeoutError, StaleConnectionError
from cluster.replicas import Replica

_NO_ARGUMENTS = b"\x00"
_AT_ONCE = 16


def ask(replica: Replica, method: str, timeout_s: float) -> Any:
    """What a method without arguments gives.

    Raises:
        TimeoutError: the replica does not answer.
    """
    until_s = time.monotonic() + timeout_s
    try:
        while True:
            connection = replica.connection()
            try:
                return connection.call(method, [_NO_ARGUMENTS], until_s, None).success
            except StaleConnectionError:
                replica.close()
            finally:
                replica.give_back(connection)
    except (HopError, HopTimeoutError, TApplicationException) as error:
        raise TimeoutError(f"replica {replica.entry.name} does not answer: {error}") from error


def ask_all(replicas: Sequence[Replica], method: str, timeout_s: float) -> list[Any]:
    """The same of several at once; None for each that does not answer."""

    def answer(replica: Replica) -> Any:
        try:
            return ask(replica, method, timeout_s)
        except TimeoutError:
            return None

    if not replicas:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(replicas)), "ask-replicas") as pool:
        return list(pool.map(answer, replicas))
