"""The programs behind the door: the tables of their options, and how they are run.

Each is imported when a command of it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from interfaces.options import Command, Option


@dataclass(frozen=True)
class Tables:
    """The options that a program describes, and its commands."""

    options: Sequence[Option]
    commands: Mapping[str, Command]


@dataclass(frozen=True)
class Program:
    """A program of this project.

    Attributes:
        spelling: how it is started without the door.
        extras: of the distribution, which it needs.
        tables: reads its tables.
        run: runs a command line of it, given its words and what the user has typed, and gives its
            exit code.
    """

    spelling: str
    extras: Sequence[str]
    tables: Callable[[], Tables]
    run: Callable[[Sequence[str], str], int]


SERVE = "serve"
TRACE_COMMAND = "trace"


def _service_tables() -> Tables:
    from service.options.server_arguments import DESCRIPTION, server_options

    options = server_options()
    names = " ".join(described.name for described in options)
    return Tables(options, {SERVE: Command(DESCRIPTION, names)})


def _run_service(words: Sequence[str], typed: str) -> int:
    from service.__main__ import start

    del typed
    _, *others = words  # its one command has no name there
    start(others)


def _client_tables() -> Tables:
    from service.client.client_command import COMMANDS, OPTIONS

    return Tables(OPTIONS, COMMANDS)


def _run_client(words: Sequence[str], typed: str) -> int:
    from service.client.client_command import main

    del typed
    return main(words)


def _cluster_tables() -> Tables:
    from cluster.update_command import COMMANDS, OPTIONS

    return Tables(OPTIONS, COMMANDS)


def _run_cluster(words: Sequence[str], typed: str) -> int:
    from cluster.update_command import main

    del typed
    return main(words)


def _loadtest_tables() -> Tables:
    from loadtest.command_line import COMMANDS, OPTIONS

    return Tables(OPTIONS, COMMANDS)


def _run_loadtest(words: Sequence[str], typed: str) -> int:
    from loadtest.__main__ import start

    return start(words, typed)


def _pipeline_tables() -> Tables:
    from pipeline.commands.pipeline_arguments import COMMANDS, OPTIONS

    return Tables(OPTIONS, COMMANDS)


def _run_pipeline(words: Sequence[str], typed: str) -> int:
    from pipeline.commands.dispatch import main

    del typed
    return main(words)


def _own_tables() -> Tables:
    from thriftpipe.door.own_commands import COMMANDS, OPTIONS

    return Tables(OPTIONS, COMMANDS)


def _run_own(words: Sequence[str], typed: str) -> int:
    from thriftpipe.door.own_commands import main

    return main(words, typed)


def _trace_tables() -> Tables:
    from thriftpipe.trace.options import COMMAND, OPTIONS

    return Tables(OPTIONS, {TRACE_COMMAND: COMMAND})


def _run_trace(words: Sequence[str], typed: str) -> int:
    from thriftpipe.trace.__main__ import main

    del typed
    _, *others = words  # its one command has no name there
    return main(others)


SERVICE = Program("python -m service", ("server",), _service_tables, _run_service)
CLIENT = Program("python -m service.client", (), _client_tables, _run_client)
CLUSTER = Program("python -m cluster", ("server",), _cluster_tables, _run_cluster)
LOADTEST = Program("python -m loadtest", ("server", "bench"), _loadtest_tables, _run_loadtest)
PIPELINE = Program("python -m pipeline", ("server",), _pipeline_tables, _run_pipeline)
TRACE = Program("python -m thriftpipe.trace", ("server", "bench"), _trace_tables, _run_trace)
OWN = Program("thriftpipe", ("server", "bench"), _own_tables, _run_own)
