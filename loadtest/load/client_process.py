"""Locust users in a process of their own: `python -m loadtest.load.client_process`.

Importing locust patches the sockets of the whole process, so nothing else imports this module.
The parent writes a `ClientConfig`, which is answered by `Loaded`, then `Start`, and at the end
`Stop`. This process answers with a `ProgressReport` every 0.2 s and, after `Stop`, with
`RequestRows` of what belongs to the window and `End`. Then it is ready for the next
`ClientConfig`, because importing locust takes longer than a short window.
"""

from __future__ import annotations

from typing import Any

import loadtest.load.patched  # noqa: F401 # isort: skip
import gevent
from locust.env import Environment

from loadtest.load.client_protocol import PROGRESS_INTERVAL_S, ClientConfig, Loaded, Start, Stop
from loadtest.load.parent import Parent
from loadtest.load.users import ClosedLoopUser, Load, OpenLoopUser, stop_timeout_s


def main() -> None:
    """Serve one parent: load after load, until it closes the pipe."""
    parent = Parent()
    while config := parent.receive([ClientConfig]):
        if not _serve(config, parent):
            return


def _serve(config: ClientConfig, parent: Parent) -> bool:
    """One load, from `Start` to `End`; False where the parent is gone."""
    is_open = config.load.arrivals_per_s is not None
    # A fault in a user must end this process, with its message, and not be counted as load.
    environment: Any = Environment(
        user_classes=[OpenLoopUser if is_open else ClosedLoopUser],
        stop_timeout=stop_timeout_s(is_open=is_open),
        catch_exceptions=False,
    )
    environment.load = load = Load(config)
    runner = environment.create_local_runner()
    parent.tell(Loaded())

    if parent.receive([Start]) is None:
        return False

    def report_progress() -> None:
        while True:
            parent.tell(load.progress(runner.user_count))
            gevent.sleep(PROGRESS_INTERVAL_S)

    runner.start(config.users, spawn_rate=config.users)
    reporter = gevent.spawn(report_progress)
    stop = parent.receive([Stop])
    load.end_at(0.0 if stop is None else stop.end_s)
    runner.quit()
    reporter.kill()
    if stop is None:
        return False
    for message in load.window(stop):
        parent.tell(message)
    return True


if __name__ == "__main__":
    main()
