"""Calls that are on their way to a replica in one message, and the threads that wait for them."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from cluster.gathered_method import EACH, NAME, forget
from cluster.hop import (
    ClientGoneError,
    HopConnection,
    HopError,
    HopTimeoutError,
    StaleConnectionError,
    poll_timeout_ms,
    sequence_id_of,
)
from cluster.infer_arguments import gathered
from service.wire.peer import Peer

# The sequence id of the message itself: the place of no call.
_WHOLE = 0xFF
_NO_REPLY = memoryview(b"")


class Connections(Protocol):
    """The connections to a replica."""

    def connection(self) -> HopConnection:
        """One that carries no call; HopError where there is none."""

    def give_back(self, connection: HopConnection) -> None:
        """Keep a connection that can carry another call."""


class NotGatheredError(Exception):
    """The replica does not take the message: each call is to be made by itself."""


class WaitingCall:
    """A call whose thread waits for it.

    Args:
        pieces: its arguments.
        until_s: when to give up, on the monotonic clock.
        peer: the client that it is for; None where there is none.

    Attributes:
        pieces: its arguments, until they are sent.
        length: of its arguments, in bytes.
        woken: held until its thread has something to do.
        leads: whether its thread sends the message.
        message: in which it is on its way; None before that and after.
        place: in that message.
        is_over: whether nothing happens to it any more.
        reply: to it, if it is over with one.
        failed: makes what to raise, if it is over without one.
    """

    __slots__ = (
        *("failed", "is_over", "leads", "length", "message", "peer"),
        *("pieces", "place", "reply", "until_s", "woken"),
    )

    def __init__(self, pieces: Sequence[bytes], until_s: float, peer: Peer | None) -> None:
        self.pieces = pieces
        self.length = sum(map(len, pieces))
        self.until_s = until_s
        self.peer = peer
        self.woken = threading.Lock()
        self.woken.acquire()
        self.leads = False
        self.message: GatheredMessage | None = None
        self.place = 0
        self.is_over = False
        self.reply = _NO_REPLY
        self.failed: Callable[[], Exception] | None = None

    def wait(self) -> bool:
        """Whether it was woken before it had to give up."""
        left_s = min(self.until_s - time.monotonic(), threading.TIMEOUT_MAX)
        return self.woken.acquire(timeout=max(0.0, left_s))


class GatheredMessage:
    """One message with several calls.

    One of the waiting threads at a time receives the replies to all, and looks whether their
    clients are there. It hands that on when its own call is over.

    Args:
        calls: two or more; that of the calling thread is the first.
        replica: that they go to.
    """

    def __init__(self, calls: Sequence[WaitingCall], replica: Connections) -> None:
        self._calls = calls
        self._replica = replica
        self._connection: HopConnection | None = None
        self._lock = threading.Lock()
        self._receiver: WaitingCall | None = calls[0]
        self._unanswered = len(calls)
        # By the descriptors of their clients.
        self._clients: dict[int, WaitingCall] = {}
        self._poll = select.poll()
        for place, call in enumerate(calls):
            call.place, call.message = place, self

    def send(self) -> None:
        """Send it, in the first call's thread; what fails is raised where calls are waited for."""
        first = self._calls[0]
        try:
            connection = self._connection = self._replica.connection()
            self._poll.register(connection.fileno(), select.POLLIN)
            for call in self._calls:
                if call.peer is not None and (fd := call.peer.fileno()) >= 0:
                    self._clients[fd] = call
                    self._poll.register(fd, select.POLLRDHUP)
            pieces = gathered([call.pieces for call in self._calls])
            connection.send(NAME, _WHOLE, pieces, first.until_s, None)
        except HopError as error:
            self._fail(partial(HopError, str(error), had_begun=error.had_begun), first)
        except OSError as error:
            self._fail(partial(connection.broken, error, had_begun=False), first)
        except HopTimeoutError:
            # It is the time of the first call that is over, and the others are sent again.
            first.failed = HopTimeoutError
            self._fail(partial(StaleConnectionError, "it was not sent", had_begun=True), first)
        except BaseException as error:
            self._fail(partial(HopError, f"it was not sent: {error!r}", had_begun=False), first)
            raise
        finally:
            # A call that is over must not keep its images while its neighbours are waited for.
            for call in self._calls:
                call.pieces = ()

    def result(self, own: WaitingCall) -> Any:
        """The struct of a call's result; to be called in the call's own thread.

        Raises:
            HopError, HopTimeoutError, ClientGoneError, TApplicationException: as from
                `HopConnection.call`.
            NotGatheredError: as it says.
        """
        try:
            while not own.is_over:
                if self._receiver is own:
                    self._receive(own)
                elif not own.wait():
                    raise HopTimeoutError
        finally:
            self._leave(own)
        if own.failed is not None:
            raise own.failed()
        assert self._connection is not None  # noqa: S101 (there is a reply)
        return self._connection.decoded(EACH, own.place, own.reply)

    def _receive(self, own: WaitingCall) -> None:
        """Receive for all calls, until that of this thread is over."""
        connection = self._connection
        assert connection is not None  # noqa: S101 (without one all calls are over)
        own_fd = connection.fileno()
        try:
            while not own.is_over:
                ready = self._poll.poll(poll_timeout_ms(own.until_s))
                if not ready:
                    raise HopTimeoutError
                for fd, _ in ready:
                    if fd == own_fd:
                        self._take(connection.receive(), own)
                    else:
                        self._look_at_client(fd, own, connection)
        except (OSError, EOFError) as error:
            had_begun = self._unanswered < len(self._calls)
            self._fail(partial(connection.broken, error, had_begun=had_begun), own)

    def _take(self, replies: Sequence[memoryview], own: WaitingCall) -> None:
        for reply in replies:
            place = sequence_id_of(reply)
            if place == _WHOLE:
                self._fail(NotGatheredError, own)
            elif not 0 <= place < len(self._calls):
                raise ConnectionAbortedError("a reply came that is to none of the calls")
            else:
                self._unanswered -= 1
                self._calls[place].reply = reply
                self._end(self._calls[place], own)

    def _look_at_client(self, fd: int, own: WaitingCall, connection: HopConnection) -> None:
        """Something has happened to the connection of a call's client."""
        self._poll.unregister(fd)
        call = self._clients.pop(fd)
        # Otherwise it is this server that has ended its half, as it does when it drains.
        if not call.is_over and call.peer is not None and call.peer.is_disconnected():
            connection.tell(forget(call.place))
            self._end(call, own, ClientGoneError)

    def _fail(self, failed: Callable[[], Exception], own: WaitingCall) -> None:
        """All calls that are not over end with that."""
        for call in self._calls:
            self._end(call, own, call.failed or failed)

    def _end(
        self,
        call: WaitingCall,
        own: WaitingCall,
        failed: Callable[[], Exception] | None = None,
    ) -> None:
        """A call is over, unless it was so already; wake its thread, if that is not this one."""
        with self._lock:
            if call.is_over:
                return
            call.failed = failed
            call.is_over = True
        if call is not own:
            call.woken.release()

    def _leave(self, own: WaitingCall) -> None:
        """The thread of this call waits no more: another one receives, or the message is done."""
        # Otherwise the two would hold each other until there is a search for garbage.
        own.message = None
        with self._lock:
            own.is_over = True
            if self._receiver is not own:
                return
            self._receiver = next((call for call in self._calls if not call.is_over), None)
            if self._receiver is not None:
                self._receiver.woken.release()
                return
        if self._connection is not None:
            if not self._unanswered:
                self._connection.all_came()
            self._replica.give_back(self._connection)
