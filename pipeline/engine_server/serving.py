"""What the engine process does: it runs the engine for the workers of a server.

Only they start it: see `pipeline.engine_process.launcher`, with the settings on stdin. It runs
the nodes that the workers leave to it, for all of them, and ends when the last one has hung up, or
the server is gone.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence

from engine.errors import EngineError
from engine.scoring import check_results
from interfaces.garbage import keep_all
from interfaces.messages import from_json
from interfaces.stats import EngineProcessStats, Stats
from pipeline.backends.assembly import settings_of
from pipeline.backends.backend_file import load_backends
from pipeline.backends.inference import ENGINE, ENGINE_BACKEND
from pipeline.callable_pipe import Pipe
from pipeline.config import PipelineConfig, parse_config
from pipeline.engine_process.engine_facts import EngineFacts
from pipeline.engine_process.messages import EngineProcessSettings
from pipeline.engine_process.split import back_part
from pipeline.engine_process.submission_queue import SubmissionQueue
from pipeline.engine_process.workers import Workers
from pipeline.errors import PipelineConfigError
from pipeline.interpreter_lock import hand_on_lock_soon
from pipeline.node_stats import nodes_stats
from service.handlers.restart_policy import RestartPolicy
from service.images.decode_memory import inherit_decode_memory
from service.logs.start import start_log
from service.malloc_arenas import keep_freed_blocks, limit_arenas
from service.processes.process import CLOSING_S, end_within
from service.processes.shared_folder import when_owner_ends
from service.processes.signals import leave_stop_to_supervisor
from service.processes.stats_report import encode_stats

logger = logging.getLogger(__name__)

# Longest time from one heartbeat to the next, and how many there are in --hang-timeout-s at least.
_LONGEST_PAUSE_S, _BEATS = 1.0, 8


def main(arguments: Sequence[str]) -> int:
    """Serve workers until the last has hung up.

    Returns:
        The exit code: 0, or 2 if the nodes cannot run, which every worker that connects is told.
    """
    leave_stop_to_supervisor()
    limit_arenas()
    hand_on_lock_soon()
    inherit_decode_memory()
    settings: EngineProcessSettings = from_json(sys.stdin.read(), [EngineProcessSettings])
    start_log(settings.log, "engine process")
    workers = Workers(socket.socket(fileno=int(arguments[0])))
    is_loaded = threading.Event()
    when_owner_ends(int(arguments[1]), lambda: _end_alone(is_loaded))
    try:
        if settings.backends is not None:
            load_backends(settings.backends)
        config, entry = parse_config(settings.document), settings.entry
        timeout_ms = config.nodes[entry].batching_timeout_ms
        with (
            SubmissionQueue(timeout_ms, workers.task) as submissions,
            Pipe(
                back_part(config, entry),
                engine=settings.engine,
                sources={entry: submissions},
                rebuild=RestartPolicy(stuck_s=settings.hang_timeout_s),
                readiness_changed=workers.tell,
                loading=workers.loading,
                check_result=check_results,
            ) as pipe,
        ):
            started_at_s = time.time()

            def counts() -> bytes:
                return encode_stats(_stats(pipe, started_at_s))

            workers.follow(pipe.why_not_ready, submissions.suspect_done, counts)
            pause_s = min(_LONGEST_PAUSE_S, settings.hang_timeout_s / _BEATS or _LONGEST_PAUSE_S)
            threading.Thread(
                target=workers.beat, args=(pause_s,), name="heartbeat", daemon=True
            ).start()
            facts = _facts(config, pipe)
            keep_all()
            keep_freed_blocks()
            is_loaded.set()
            workers.serve(facts, submissions.writer)
            # No caller waits for what still runs here.
            end_within(CLOSING_S)
    except (EngineError, PipelineConfigError) as error:
        workers.turn_away(str(error))
        return 2
    return 0


def _facts(config: PipelineConfig, pipe: Pipe) -> EngineFacts:
    """What the workers have to know of the engine."""
    for name, node in pipe.local_nodes.items():
        expression, settings = config.nodes[name].backend, config.nodes[name].settings
        if ENGINE_BACKEND in expression.names():
            engine = node.shared.get(ENGINE)
            return EngineFacts.of(engine, settings_of(ENGINE_BACKEND, expression, settings))
    raise PipelineConfigError(f"no node of the engine process has {ENGINE_BACKEND}")


def _stats(pipe: Pipe, started_at_s: float) -> Stats:
    """What this process has done for all workers."""
    return Stats(
        uptime_s=time.time() - started_at_s,
        nodes=nodes_stats(pipe.local_nodes),
        engine_process=EngineProcessStats(alive=True, pid=os.getpid(), started_at_s=started_at_s),
    )


def _end_alone(is_loaded: threading.Event) -> None:
    """End this process, which no worker will ever reach again."""
    if not is_loaded.is_set():
        os._exit(1)
    end_within(CLOSING_S)
