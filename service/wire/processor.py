"""Decodes a call, makes it, and encodes the reply or the exception."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from thriftpy2.thrift import TApplicationException, TException, TMessageType
from thriftpy2.transport import TCyMemoryBuffer

from idl import inference
from service.call_counts import (
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_IMAGE,
    INVALID_REQUEST,
    OK,
    OVERLOADED,
    PROTOCOL_ERROR,
    CallCounts,
)
from service.errors import forget_frames
from service.refusals import refusal_reason
from service.wire.binary_protocol import BinaryProtocol
from service.wire.buffer_budget import POOLED_BUFFER_BYTES, MemoryFullError
from service.wire.framing import Message
from service.wire.large_strings import restore
from service.wire.message_buffer import BUFFER_BYTES
from service.wire.method_table import Method, MethodTable
from service.wire.peer import hold_back
from service.wire.scanner import LimitError, ProtocolError

_log = logging.getLogger(__name__)


# Of all connections: decoding is short, and one thread does it at a time. Each has a buffer that
# has grown with the largest message it has had.
_idle_decoders: list[tuple[Any, Any]] = []
_MOST_IDLE_DECODERS = 4

UNKNOWN_METHOD = "unknown"
"""What calls are counted under that name no method of the service."""
_OUTCOMES = {
    inference.InvalidImage: INVALID_IMAGE,
    inference.InvalidRequest: INVALID_REQUEST,
    inference.Overloaded: OVERLOADED,
    inference.DeadlineExceeded: DEADLINE_EXCEEDED,
    inference.InternalError: INTERNAL_ERROR,
}

INTERNAL_ERROR_MESSAGE = "the server failed; its log has the cause under this error_id"


def new_error_id() -> str:
    """A short id that the client gets and that is in the server's log."""
    return uuid.uuid4().hex[:12]


class Processor:
    """Answers the calls of one connection, one at a time; its buffers are used again.

    Args:
        methods: by wire name.
        counts: where each call is counted before its reply is sent; None for nowhere.
    """

    def __init__(self, methods: MethodTable, counts: CallCounts | None = None) -> None:
        self._methods = methods
        self._counts = counts or CallCounts()
        self._new_output()

    def _new_output(self) -> None:
        self._output = TCyMemoryBuffer()
        self._encoder = BinaryProtocol(self._output)

    def process(self, message: Message) -> bytes | None:
        """The encoded reply to a call, without a frame header; None where it has been sent already.

        Never raises: whatever fails is answered with an exception that the client understands.
        """
        method = self._methods.get(message.name)
        if method is None:
            self._counts.call_done(UNKNOWN_METHOD, PROTOCOL_ERROR, 0.0)
            known = ", ".join(name.decode() for name in self._methods)
            given = message.name.decode("utf-8", "replace")
            return self.encode_exception(
                message.name,
                message.sequence_id,
                TApplicationException.UNKNOWN_METHOD,
                f"unknown method {given!r}; this service has {known}",
            )
        call = partial(self._call, method, message)
        return self.reply(method, message.name, message.sequence_id, time.monotonic(), call)

    def reply(
        self, method: Method, name: bytes, sequence_id: int, began_s: float, call: Callable[[], Any]
    ) -> bytes:
        """The encoded reply of what a call gives or raises, without a frame header. Never raises.

        Args:
            method: of the call, which is counted.
            name: the method's.
            sequence_id: the client's number for the call.
            began_s: when the call had arrived, on the monotonic clock.
            call: gives the result, or raises.
        """
        try:
            reply, outcome = self._answer(method, name, sequence_id, call)
        except TApplicationException as error:
            reply = self.encode_exception(name, sequence_id, error.type, str(error))
            outcome = PROTOCOL_ERROR
        except ProtocolError as error:
            reply, outcome = self._refusal(name, sequence_id, error)
        # Native libraries raise things that are no Exception, such as Rust's panics in Python.
        except BaseException as error:  # noqa: BLE001 (the connection and its neighbours must live)
            reply = self._internal_error(method, name, sequence_id, error)
            outcome = INTERNAL_ERROR
        self._counts.call_done(method.name, outcome, time.monotonic() - began_s)
        if len(reply) > BUFFER_BYTES:
            self._new_output()
        return reply

    def refuse(self, name: bytes, sequence_id: int, error: ProtocolError) -> bytes:
        """The encoded answer to a message that is not taken, without a frame header.

        A message beyond a limit is an InvalidRequest, and one for which there is no room just now
        an Overloaded, where its method declares that.

        Args:
            name: its method, as far as that has arrived.
            sequence_id: the client's number for it.
            error: what is wrong with it.
        """
        reply, outcome = self._refusal(name, sequence_id, error)
        method = self._methods.get(name)
        self._counts.call_done(UNKNOWN_METHOD if method is None else method.name, outcome, 0.0)
        return reply

    def _refusal(self, name: bytes, sequence_id: int, error: ProtocolError) -> tuple[bytes, str]:
        """That answer, and the outcome of the call."""
        method = self._methods.get(name)
        declared: TException | None = None
        outcome = PROTOCOL_ERROR
        if isinstance(error, LimitError):
            declared, outcome = inference.InvalidRequest(str(error)), INVALID_REQUEST
        elif isinstance(error, MemoryFullError):
            declared, outcome = inference.Overloaded(str(error), error.retry_after_ms), OVERLOADED
            self._counts.refused(error.reason)
        if method is not None and declared is not None:
            field = method.exceptions.get(type(declared))
            if field is not None:
                result = method.result()
                setattr(result, field, declared)
                return self._encode(name, TMessageType.REPLY, sequence_id, result), outcome
        return self.encode_exception(name, sequence_id, error.exception_type, str(error)), outcome

    def encode_exception(
        self, name: bytes, sequence_id: int, exception_type: int, text: str
    ) -> bytes:
        """An encoded TApplicationException, without a frame header."""
        return self._encode(
            name, TMessageType.EXCEPTION, sequence_id, TApplicationException(exception_type, text)
        )

    def _call(self, method: Method, message: Message) -> Any:
        """What the method gives."""
        if method.check is not None and len(message.body) > BUFFER_BYTES:
            method.check(message.body)
        return method.call(*self.decode(method, message))

    def _answer(
        self, method: Method, name: bytes, sequence_id: int, call: Callable[[], Any]
    ) -> tuple[bytes, str]:
        """The encoded reply, and the outcome of the call."""
        result, told = method.result(), OK
        try:
            outcome = call()
        except TException as error:
            field = method.exceptions.get(type(error))
            if field is None:
                raise
            forget_frames(error)
            told = _OUTCOMES[type(error)]
            if isinstance(error, inference.Overloaded):
                self._counts.refused(refusal_reason(error))
                hold_back(error.retry_after_ms)
            setattr(result, field, error)
        else:
            if outcome is not None:
                result.success = outcome
        return self._encode(name, TMessageType.REPLY, sequence_id, result), told

    def decode(self, method: Method, message: Message) -> list[Any]:
        """The arguments of a call; TApplicationException where one is missing."""
        args = method.args()
        source, decoder = _idle_decoders.pop() if _idle_decoders else _new_decoder()
        source.clean()
        source.write(message.body)
        body_bytes = len(message.body)
        message.decoded()
        decoder.read_struct(args)
        if body_bytes <= POOLED_BUFFER_BYTES and len(_idle_decoders) < _MOST_IDLE_DECODERS:
            _idle_decoders.append((source, decoder))
        if message.strings:
            restore(args, message.strings)
            # The arguments alone have them now.
            message.strings.clear()
        return method.values(args)

    def _internal_error(
        self, method: Method, name: bytes, sequence_id: int, error: BaseException
    ) -> bytes:
        error_id = new_error_id()
        _log.error("%s failed, error_id %s", method.name, error_id, exc_info=error)
        field = method.exceptions.get(inference.InternalError)
        if field is None:
            return self.encode_exception(
                name,
                sequence_id,
                TApplicationException.INTERNAL_ERROR,
                f"{INTERNAL_ERROR_MESSAGE}: {error_id}",
            )
        result = method.result()
        setattr(result, field, inference.InternalError(INTERNAL_ERROR_MESSAGE, error_id))
        return self._encode(name, TMessageType.REPLY, sequence_id, result)

    def _encode(self, name: bytes, message_type: int, sequence_id: int, struct: Any) -> bytes:
        self._output.clean()
        self._encoder.write_message_begin(name, message_type, sequence_id)
        self._encoder.write_struct(struct)
        encoded: bytes = self._output.getvalue()
        return encoded


def _new_decoder() -> tuple[Any, Any]:
    source = TCyMemoryBuffer()
    return source, BinaryProtocol(source)
