"""What a node's instances on one GPU, or all on the CPU, have in common."""

from __future__ import annotations

import logging
import threading

from interfaces.error_text import in_one_line
from pipeline.backends.decoder_lock import DecoderLock
from pipeline.backends.interface import SharedResources

logger = logging.getLogger(__name__)


class Device:
    """A place where instances of a node run, and what they share there.

    Args:
        number: the GPU's number; 0 on the CPU.
        is_gpu: whether it is a GPU.
        decoder_lock: held by the one that decodes; None where all may.

    Attributes:
        shared: what they share.
        rebuilding: held by the one that is being rebuilt.
    """

    def __init__(
        self, number: int, *, is_gpu: bool = False, decoder_lock: DecoderLock | None = None
    ) -> None:
        self.number = number
        self.is_gpu = is_gpu
        self.decoder_lock = decoder_lock
        self.shared = SharedResources()
        self.rebuilding = threading.Lock()
        self._lock = threading.Lock()
        self._holders = 0

    def hold(self, *, doubtful: bool) -> None:
        """Use what is shared from now on; if it is doubtful and nothing holds it, drop it first."""
        with self._lock:
            if doubtful and self._holders == 0:
                try:
                    self.shared.close()
                except BaseException as error:  # noqa: BLE001 (what is broken may not close either)
                    logger.warning(
                        "the resources that instances shared could not be closed: %s",
                        in_one_line(error),
                    )
            self._holders += 1

    def let_go(self) -> None:
        """Use it no more."""
        with self._lock:
            self._holders -= 1
