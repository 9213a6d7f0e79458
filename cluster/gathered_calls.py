"""A replica's side of `cluster.gathered_method`: calls that came together, each for itself."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from thriftpy2.thrift import TApplicationException
from thriftpy2.transport import TCyMemoryBuffer

from cluster.gathered_method import (
    EACH,
    FORGET,
    FORGET_BYTES,
    MOST_CALLS,
    NAME,
    GatheredArguments,
    forgotten,
)
from service.call_counts import CallCounts
from service.handler_calls import Begun
from service.inference_service import InferenceService
from service.server import Server
from service.wire.binary_protocol import BinaryProtocol
from service.wire.framing import FRAME_HEADER, Message
from service.wire.method_table import Method, MethodTable
from service.wire.peer import Peer, current_peer, serve_peer
from service.wire.processor import Processor
from service.wire.transport import Transport

_METHOD = Method(
    NAME,
    GatheredArguments,
    GatheredArguments,
    lambda: None,
    ("calls",),
    frozenset(("calls",)),
    {},
    None,
)
_WHOLE, _EACH, _FORGET = NAME.encode(), EACH.encode(), FORGET.encode()
# More at once are heard of the next time.
_MOST_HEARD_BYTES = MOST_CALLS * FORGET_BYTES


class GatheringServer(Server):
    """A server that also takes gathered calls."""

    def _processor(self, transport: Transport, address: str) -> Processor:
        """What answers the calls of one more connection."""
        service = self._service
        assert service is not None  # noqa: S101 (clients are let in once it is there)
        replied = self._telling.replied
        told = None if replied is None else partial(replied, address)
        return GatheringProcessor(self._methods, self._counts, service, transport, told)


class GatheringProcessor(Processor):
    """Answers the calls of one connection, also those that come together.

    Args:
        methods: as of `Processor`.
        counts: as of `Processor`.
        service: begins calls.
        transport: where the replies to such calls are sent.
        told: called for each of these, with the sizes in bytes of the call's arguments and of the
            reply; None for no such call.
    """

    def __init__(
        self,
        methods: MethodTable,
        counts: CallCounts,
        service: InferenceService,
        transport: Transport,
        told: Callable[[int | None, int], None] | None,
    ) -> None:
        super().__init__(methods, counts)
        self._each = methods[_EACH]
        self._service = service
        self._transport = transport
        self._told = told

    def process(self, message: Message) -> bytes | None:
        """As `Processor`; None for gathered calls, whose replies are sent one by one."""
        if message.name == _FORGET:
            # The call was answered meanwhile.
            return None
        if message.name != _WHOLE:
            return super().process(message)
        try:
            [calls] = self.decode(_METHOD, message)
            if len(calls) > MOST_CALLS:
                raise TApplicationException(
                    TApplicationException.PROTOCOL_ERROR, f"{len(calls)} calls came together"
                )
        except TApplicationException as error:
            return self.encode_exception(message.name, message.sequence_id, error.type, str(error))
        self._answer_all(calls)
        return None

    def _answer_all(self, calls: list[Any]) -> None:
        """Begin all calls, then answer each as soon as it is done or its time is over.

        Raises:
            OSError: the connection broke. The calls are over nevertheless.
        """
        peer = current_peer()
        assert peer is not None  # noqa: S101 (this thread serves a connection)
        together = _Together(peer, self._transport.sock)
        broken: OSError | None = None
        try:
            begun, replies = self._begin(calls, together)
            # The calls alone have their images now.
            calls.clear()
            while begun or replies:
                if not begun:
                    # The front end may send the next message as soon as it has the last reply.
                    together.close()
                if replies and broken is None:
                    try:
                        self._transport.send(b"".join(replies))
                    except OSError as error:
                        broken = error
                replies = [
                    self._reply(together, place, begun.pop(place).result)
                    for place in together.over(begun)
                ]
        finally:
            serve_peer(peer)
            together.close()
        if broken is not None:
            raise broken

    def _begin(
        self, calls: Sequence[Any], together: _Together
    ) -> tuple[dict[int, Begun[list[Any]]], list[bytes]]:
        """The calls that have begun, by place, and replies to those that are refused."""
        begun = {}
        refusals = []
        for place, args in enumerate(calls):
            serve_peer(together.peer_of(place))
            if self._told is not None:
                together.sizes_bytes[place] = _encoded_bytes(args)
            try:
                requests, options = self._each.values(args)
                done = partial(together.done, place)
                begun[place] = self._service.begin_infer_images(requests, options, done)
            except BaseException as error:  # noqa: BLE001 (answered as of any other call)
                refusals.append(self._reply(together, place, partial(_raise, error)))
        return begun, refusals

    def _reply(self, together: _Together, place: int, call: Callable[[], Any]) -> bytes:
        reply = self.reply(self._each, _EACH, place, together.arrived_s, call)
        if self._told is not None:
            self._told(together.sizes_bytes[place], len(reply))
        return FRAME_HEADER.pack(len(reply)) + reply


def _encoded_bytes(args: Any) -> int:
    """How many bytes arguments take on the wire."""
    buffer = TCyMemoryBuffer()
    BinaryProtocol(buffer).write_struct(args)
    return len(buffer.getvalue())


def _raise(error: BaseException) -> None:
    raise error


class _Together:
    """The calls of one message: which are done, and which of their clients have gone.

    Args:
        peer: the front end.
        sock: the connection to it.

    Attributes:
        arrived_s: when they had arrived, on the monotonic clock.
        sizes_bytes: of the arguments of each call, where that is told.
    """

    def __init__(self, peer: Peer, sock: socket.socket) -> None:
        self.arrived_s = peer.arrived_s
        self.sizes_bytes: dict[int, int] = {}
        self._peer = peer
        self._socket = sock
        self._lock = threading.Lock()
        self._done: list[int] = []
        # Held while nothing wakes the connection's thread.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._is_waited_for = False
        self._gone: set[int] = set()
        self._is_closed = False

    def peer_of(self, place: int) -> Peer:
        """The client of the call in that place."""
        return _CallPeer(self, place, self._peer, self._socket)

    def done(self, place: int) -> None:
        """A call is done; any thread may say so."""
        with self._lock:
            self._done.append(place)
            wakes, self._is_waited_for = self._is_waited_for, False
        if wakes:
            self._gate.release()

    def over(self, begun: Mapping[int, Begun[list[Any]]]) -> list[int]:
        """Wait for some of these to be done, or late: which."""
        if not begun:
            return []
        due_s = min(call.waits_until_s for call in begun.values())
        with self._lock:
            done, self._done = self._done, []
            self._is_waited_for = not done
        if not done:
            left_s = min(due_s - time.monotonic(), threading.TIMEOUT_MAX)
            is_woken = self._gate.acquire(timeout=max(0.0, left_s))
            with self._lock:
                done, self._done = self._done, []
                is_late_to_wake = not is_woken and not self._is_waited_for
                self._is_waited_for = False
            if is_late_to_wake:
                self._gate.acquire()
        if (now_s := time.monotonic()) >= due_s:
            done += (place for place, call in begun.items() if call.waits_until_s <= now_s)
        # One that was late may be done by now.
        return [place for place in dict.fromkeys(done) if place in begun]

    def has_gone(self, place: int) -> bool:
        """Whether nobody waits for that call any more. Any thread may ask; one system call."""
        with self._lock:
            if not self._is_closed:
                self._listen()
            return place in self._gone

    def close(self) -> None:
        """All are done: what comes is another message. May be repeated."""
        with self._lock:
            self._is_closed = True

    def _listen(self) -> None:
        """Hear what the front end has told meanwhile."""
        try:
            come = self._socket.recv(_MOST_HEARD_BYTES, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            # What has not come as a whole stays there.
            if whole_bytes := len(come) - len(come) % FORGET_BYTES:
                come = self._socket.recv(whole_bytes, socket.MSG_DONTWAIT)
                self._gone.update(forgotten(come))
        except BlockingIOError:
            return
        except OSError:
            come = b""
        # Nothing comes, too, where this server has ended that half, as it does when it drains.
        if not come and self._peer.is_disconnected():
            self._gone.update(range(MOST_CALLS))
            self._is_closed = True


class _CallPeer(Peer):
    """The client of one of several calls of a connection."""

    def __init__(self, together: _Together, place: int, of_all: Peer, sock: socket.socket) -> None:
        super().__init__(sock, of_all.take_memory)
        self.arrived_s = of_all.arrived_s
        self._together = together
        self._place = place

    def is_disconnected(self) -> bool:
        """Whether nobody waits for the call's reply any more."""
        return self._together.has_gone(self._place)
