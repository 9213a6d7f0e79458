"""The front end that `--cluster` asks for."""

from __future__ import annotations

from cluster.front_end import FrontEnd
from cluster.release import Release
from interfaces.extras import install_command
from service.accepting.descriptors import allow_descriptors
from service.accepting.listener import PortListener
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.logs.log_settings import LogSettings
from service.options.cluster_settings import ClusterSettings
from service.options.server_settings import ServerSettings
from service.processes.handler_program import check_settings


def front_end(
    cluster: ClusterSettings,
    handler: str,
    for_handler: HandlerSettings,
    settings: ServerSettings,
    log: LogSettings,
    options_given: str,
) -> FrontEnd:
    """A front end for replicas of the handler.

    Args:
        cluster: where these are, and how many.
        handler: its name.
        for_handler: its settings.
        settings: the server's, which are also those of each replica.
        log: how all of them log.
        options_given: the options that are no defaults, in words.

    Raises:
        ConfigurationError: Ray is missing, an option is of no use with replicas, or the handler
            cannot work with its settings.
    """
    if settings.workers not in (None, 1):
        raise ConfigurationError(
            f"--workers {settings.workers}: a replica is one process, and there are several of "
            "these: use --replicas instead"
        )
    if for_handler.devices:
        raise ConfigurationError(
            "--devices: Ray chooses the GPUs of each replica; use --gpus-per-replica instead"
        )
    try:
        from cluster.ray_cluster import RayCluster
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"--cluster needs the package {error.name!r}: {install_command('cluster')}, on a "
            "Python that Ray has packages for (3.10 to 3.14)"
        ) from error
    check_settings(handler, for_handler)
    # Each call may have a connection to a replica, too.
    allow_descriptors(2 * settings.max_connections)
    release = Release.of(handler, for_handler, settings, log, options_given)
    return FrontEnd(settings, PortListener(settings), RayCluster(cluster, release), options_given)
