"""What the options ask to be told of each request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interfaces.extras import install_command
from service.call_counts import CallCounts
from service.errors import ConfigurationError
from service.options.server_settings import ServerSettings
from service.requests.observed_counts import ObservedCounts
from service.requests.request import Teller
from service.requests.request_log import RequestLog


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Telling:
    """The counts of a process, and what goes with them.

    Attributes:
        counts: where calls and images are counted.
        replied: to be called with each reply, as `ObservedCounts.replied`; None where nothing is
            told.
        close: sends what has not left yet.
    """

    counts: CallCounts
    replied: Callable[[str, int | None, int], None] | None = None
    close: Callable[[], None] = _nothing


def telling(settings: ServerSettings, worker: int) -> Telling:
    """What the settings ask for.

    Args:
        settings: the server's.
        worker: the number of this process among those that serve.

    Raises:
        ConfigurationError: a package for it is missing, or OpenTelemetry's variables cannot work.
    """
    tellers: list[Teller] = []
    close = _nothing
    if settings.access_log or settings.slow_ms:
        tellers.append(RequestLog(is_of_all=settings.access_log, slow_ms=settings.slow_ms))
    if settings.trace_endpoint is not None:
        try:
            from service.requests.traces import Traces
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"--trace-endpoint needs the package {error.name!r}: {install_command('otel')}"
            ) from error
        try:
            traces = Traces.to_endpoint(settings.trace_endpoint, {"thriftpipe.worker": worker})
        except ValueError as error:
            # Variables of its own that the SDK does not only warn of.
            raise ConfigurationError(
                f"--trace-endpoint: OpenTelemetry does not accept its variables OTEL_*: {error}"
            ) from error
        tellers.append(traces)
        close = traces.close
    if not tellers:
        return Telling(CallCounts())
    counts = ObservedCounts(tellers)
    return Telling(counts, counts.replied, close)
