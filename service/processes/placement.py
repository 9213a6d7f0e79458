"""Which of a server's processes this is, and what its share of the machine is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from service.handlers.handler_settings import HandlerSettings
from service.images.cost import largest_image_bytes
from service.options.server_settings import ServerSettings


@dataclass(frozen=True)
class Placement:
    """The place of a process among those of its server; by default it is the only one.

    Attributes:
        worker: its number, from 0.
        workers: how many serve.
        supervisor_pid: pid of their parent; None where one process is the server.
        shared_folder: a folder for the workers alone; None likewise.
        why: why so many serve, in words.
        options_given: the options that are no defaults, and where each is from, in words.
    """

    worker: int = 0
    workers: int = 1
    supervisor_pid: int | None = None
    shared_folder: str | None = None
    why: str = "--workers"
    options_given: str = ""

    def server_settings(self, whole: ServerSettings) -> ServerSettings:
        """The settings of this process by itself.

        The parts of `max_queue` add up to the whole; each part of `max_buffered_bytes` holds a
        message at least, and each of `max_decoded_bytes` one image of `max_image_pixels`, as far as
        the whole does. The supervisor says when to stop, and has let the time pass then in which
        a server is not ready.
        """
        each, rest = divmod(whole.max_queue, self.workers)
        share = each + (self.worker < rest)
        buffered_bytes = max(whole.max_frame_bytes, whole.max_buffered_bytes // self.workers)
        largest_bytes = min(whole.max_decoded_bytes, largest_image_bytes(whole.max_image_pixels))
        decoded_bytes = max(largest_bytes, whole.max_decoded_bytes // self.workers)
        return replace(
            whole,
            workers=1,
            max_queue=share,
            max_buffered_bytes=buffered_bytes,
            max_decoded_bytes=decoded_bytes,
            drain_delay_s=0.0,
        )

    def handler_settings(self, whole: HandlerSettings) -> HandlerSettings:
        """The handler's settings with this process's GPUs and bytes, and the workers' folder.

        Workers share the GPUs out; where there are fewer GPUs than workers, workers share GPUs.
        """
        whole = replace(
            whole,
            shared_folder=self.shared_folder,
            max_buffered_bytes=whole.max_buffered_bytes // self.workers,
        )
        if not whole.devices:
            return whole
        alone = (whole.devices[self.worker % len(whole.devices)],)
        return replace(whole, devices=whole.devices[self.worker :: self.workers] or alone)


def share_of_cores(cores: int, workers: int) -> int:
    """How many of the host's cores each of `workers` may count on, at least 1."""
    return max(1, cores // workers)
