"""The server of a replica: that of one process, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from cluster.gathered_calls import GatheringServer
from cluster.gathered_method import MOST_BYTES
from service.accepting.descriptors import allow_descriptors
from service.accepting.listener import PortListener
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.handlers.table import create_handler
from service.images.decode_memory import limit_decode_memory
from service.images.limit import prepare_opencv
from service.malloc_arenas import limit_arenas
from service.options.server_settings import ServerSettings
from service.processes.placement import Placement
from service.wire.scanner import DECODABLE_DEPTH

_log = logging.getLogger(__name__)

# What a front end adds to a client's message: the time limit and the trace.
_ADDED_BYTES, _ADDED_VALUES = 1024, 16
# What a message of several calls may have, however small each of them has to be, and how much
# deeper each lies there than in a message of its own.
_GATHERED_VALUES, _GATHERED_DEPTH = 1024, 2


class ReplicaServer:
    """Serves a handler to front ends.

    Args:
        handler: its name.
        for_handler: its settings.
        settings: the server's, with the address to listen on.
        options_given: the front end's options, in words.
    """

    def __init__(
        self,
        handler: str,
        for_handler: HandlerSettings,
        settings: ServerSettings,
        options_given: str,
    ) -> None:
        settings = _with_room(settings)
        allow_descriptors(settings.max_connections)
        prepare_opencv(settings.max_image_pixels)
        limit_decode_memory(settings.max_decoded_bytes)
        limit_arenas()
        self._is_up = threading.Event()
        self._listener = _TellingListener(settings, self._is_up)
        self.server = GatheringServer(
            settings,
            handler,
            lambda: create_handler(handler, for_handler),
            self._listener,
            Placement(why="a replica is one process", options_given=options_given),
        )
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="replica", daemon=True)

    def start(self) -> tuple[str, int]:
        """Load the model and serve; the address, host and port.

        Raises:
            ConfigurationError: a setting cannot work.
            OSError: the address cannot be had.
        """
        self._thread.start()
        self._is_up.wait()
        if self._error is not None:
            raise self._error
        return self._listener.address

    def why_not_ready(self) -> str:
        """Why it can take no requests; "" where it can."""
        if not self._thread.is_alive():
            return f"its server has ended: {self._error or 'it was stopped'}"
        return self.server.why_not_ready()

    def stop(self, reason: str) -> None:
        """Finish the requests in flight, as long as the settings allow."""
        self.server.stop(reason)
        self._thread.join(self.server.stop_limit_s)

    def _run(self) -> None:
        try:
            with self.server as server:
                server.run()
        except (ConfigurationError, OSError) as error:
            self._error = error
        except BaseException as error:
            self._error = error
            _log.exception("the replica's server has ended")
            raise
        finally:
            self._is_up.set()


def _with_room(settings: ServerSettings) -> ServerSettings:
    """The settings with room for what a front end makes of its clients' messages.

    It adds something to a client's largest one, and gathers small ones.
    """
    frame_bytes = max(settings.max_frame_bytes, MOST_BYTES) + _ADDED_BYTES
    return replace(
        settings,
        max_frame_bytes=frame_bytes,
        max_buffered_bytes=max(frame_bytes, settings.max_buffered_bytes),
        max_message_values=max(settings.max_message_values + _ADDED_VALUES, _GATHERED_VALUES),
        max_message_depth=min(settings.max_message_depth + _GATHERED_DEPTH, DECODABLE_DEPTH),
    )


class _TellingListener(PortListener):
    """Tells when clients are let in; the line that says "ready" is the front end's."""

    def __init__(self, settings: ServerSettings, is_up: threading.Event) -> None:
        super().__init__(replace(settings, port=0))
        self._is_up = is_up

    def _announce(self, running: str, address: str) -> None:
        _log.info("serving front ends: %s on %s", running, address)
        self._is_up.set()
