"""What chaos does to a server while well-behaved clients use it.

Each function disturbs for about `length_s` seconds, and returns what it did in words and the
checks that only it can make.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
import time

from interfaces.sizes import size_text
from loadtest.records.run import Check
from tests.robustness import wire
from tests.robustness.checking_clients import HUNG, WRONG, CheckingClients, Habits, wait_until
from tests.robustness.colour_model import LABELS, encoded
from tests.robustness.proxy import BadNetwork
from tests.robustness.server_under_test import ServerUnderTest

TIMEOUT_S = 1.0
"""The server's --message-timeout-s and --write-timeout-s in these phases."""

_BOUND_S = 10.0
_REPLACED_WITHIN_S = 60.0
_EACH = 30
_SLOW_READERS = 4
_UUID_BYTES = 200_000
_UUIDS = 60
_NEAR = 3
"""Descriptors that may come and go by themselves, such as those of a ping under way."""

Outcome = tuple[str, list[Check]]


def kill_clients(
    server: ServerUnderTest, length_s: float, rng: random.Random, habits: Habits
) -> Outcome:
    """SIGKILL client processes that have calls in every state."""
    del habits
    end_s = time.monotonic() + length_s
    kills = 0
    command = [sys.executable, "-m", "tests.robustness.victim", str(server.port)]
    while kills == 0 or time.monotonic() < end_s:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            victim.stdout.readline()
            time.sleep(rng.uniform(0.05, 0.4))
            victim.kill()
        kills += 1
    return f"{kills} client processes killed", []


def half_open(
    server: ServerUnderTest, length_s: float, rng: random.Random, habits: Habits
) -> Outcome:
    """Connections that say nothing, and others that stop in the middle of a message."""
    message = wire.infer_batch(1, b"", habits.images[0].data)
    framed = wire.frame(message)
    silent = [wire.connect(server.port, _BOUND_S) for _ in range(_EACH)]
    parted = []
    for number in range(_EACH):
        sock = wire.connect(server.port, _BOUND_S)
        data = framed if number % 2 else message
        sock.sendall(data[: rng.randrange(1, len(data))])
        parted.append(sock)
    time.sleep(max(0.0, length_s - TIMEOUT_S))
    closed = sum(map(_is_closed_in_time, parted))
    readable, _, _ = select.select(silent, [], [], 0)
    for sock in [*silent, *parted]:
        sock.close()
    return f"{_EACH} silent connections, {_EACH} with part of a message", [
        Check(
            "a message that stops midway is given up",
            f"--message-timeout-s {TIMEOUT_S:g}, within {_BOUND_S:g} s",
            f"{closed} of {_EACH} closed",
            closed == _EACH,
        ),
        Check("silent connections are kept", "all", f"{_EACH - len(readable)} kept", not readable),
    ]


def _is_closed_in_time(sock: socket.socket) -> bool:
    try:
        while sock.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def bad_network(
    server: ServerUnderTest, length_s: float, rng: random.Random, habits: Habits
) -> Outcome:
    """Well-behaved clients behind a network that delays, trickles, cuts and resets."""
    seed = rng.getrandbits(32)
    with BadNetwork(server.port, seed) as network:
        with CheckingClients(network.port, 6, habits, seed) as clients:
            time.sleep(length_s)
        faults = dict(sorted(network.counts.items()))
    wrong = clients.counts[WRONG] + clients.counts[HUNG]
    return f"connections by fault: {faults}", [
        Check(
            "behind a bad network answers are right or the connection ends",
            "0 wrong, 0 without answer",
            ", ".join(f"{count} {name}" for name, count in sorted(clients.counts.items())),
            wrong == 0 and clients.counts["right"] > 0,
        )
    ]


def slow_readers(
    server: ServerUnderTest, length_s: float, rng: random.Random, habits: Habits
) -> Outcome:
    """Clients that ask for megabytes and never read them."""
    del rng
    started_s = time.monotonic()
    before = server.descriptors()
    data = habits.images[0].data
    big = wire.frame(
        wire.infer_images(
            1, [(b"%d" % n * (_UUID_BYTES // 2), data) for n in range(10, 10 + _UUIDS)]
        )
    )
    readers = []
    for _ in range(_SLOW_READERS):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(_BOUND_S)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(big)
        readers.append(sock)
    # Without reading, a client cannot see the close; the server's descriptors show it.
    dropped = wait_until(lambda: server.descriptors() <= before + 1, _BOUND_S + 2 * TIMEOUT_S)
    time.sleep(max(0.0, length_s - (time.monotonic() - started_s)))
    for sock in readers:
        sock.close()
    return f"{_SLOW_READERS} clients that do not read {size_text(len(big))}", [
        Check(
            "a client that does not read its reply is dropped",
            f"--write-timeout-s {TIMEOUT_S:g}, within {_BOUND_S:g} s",
            "all dropped" if dropped else "some were not",
            dropped,
        )
    ]


def descriptors_return(server: ServerUnderTest, before: int) -> Check:
    """That a disturbance leaves no descriptor behind in the server."""
    back = wait_until(lambda: server.descriptors() <= before + _NEAR, _BOUND_S)
    return Check(
        "descriptors are given back",
        f"{before} and {_NEAR} that come and go",
        str(server.descriptors()),
        back,
    )


def kill_workers(
    server: ServerUnderTest, length_s: float, rng: random.Random, habits: Habits
) -> Outcome:
    """SIGKILL the worker that answers, and wait for its successor."""
    del rng, habits
    end_s = time.monotonic() + length_s
    workers = len(server.worker_pids())
    kills = replaced = 0
    while kills == 0 or time.monotonic() < end_s:
        info = wire.exchange(server.port, wire.call(b"server_info", 1), _BOUND_S).fields[0]
        victim = info[7]
        os.kill(victim, signal.SIGKILL)
        kills += 1
        back = wait_until(
            lambda pid=victim: (  # type: ignore[misc]
                pid not in server.worker_pids() and len(server.worker_pids()) >= workers
            ),
            _REPLACED_WITHIN_S,
        )
        replaced += back
        time.sleep(TIMEOUT_S)
    return f"{kills} workers killed", [
        Check(
            "a worker that dies is replaced",
            f"within {_REPLACED_WITHIN_S:g} s",
            f"{replaced} of {kills}",
            replaced == kills,
        )
    ]


def only_load(
    server: ServerUnderTest, length_s: float, rng: random.Random, habits: Habits
) -> Outcome:
    """Nothing from outside; the engine itself fails."""
    del server, rng, habits
    time.sleep(length_s)
    return "an engine that raises at random", []


def known_images() -> list[tuple[bytes, str | None]]:
    """Images of all labels and two that are none."""
    sizes = ((64, 48), (200, 150), (320, 240))
    good = [(encoded(label, *size, ".jpg"), label) for label in LABELS for size in sizes]
    png = [(encoded(label, 64, 48, ".png"), label) for label in LABELS]
    return [*good, *png, (b"no image at all", None), (good[0][0][:40], None)]
