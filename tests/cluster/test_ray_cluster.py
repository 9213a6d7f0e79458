"""Which addresses of a Ray cluster are taken, and whose replicas a front end may end."""

from __future__ import annotations

import pytest

from cluster.release import Release
from cluster.update_command import main
from service.errors import ConfigurationError
from service.handlers.handler_settings import HandlerSettings
from service.logs.log_settings import LogSettings
from service.options.cluster_settings import ClusterSettings
from service.options.server_settings import ServerSettings
from tests.cluster.needs import needs_ray
from tests.commands import run_here
from tests.serving import ServerProcess

pytestmark = needs_ray


@pytest.mark.parametrize("address", ["LOCAL", "head", "10.0.0.1:port", ":6379", "10.0.0.1:65536"])
def test_what_is_no_address_is_refused(address: str) -> None:
    from cluster.ray_cluster import host_and_port

    with pytest.raises(ConfigurationError, match=r"such as 10\.0\.0\.1:6379, auto .* or local"):
        host_and_port(address)


def test_addresses() -> None:
    from cluster.ray_cluster import host_and_port

    assert host_and_port("10.0.0.1:6379") == ("10.0.0.1", 6379)
    assert host_and_port("[::1]:6379") == ("::1", 6379)
    assert {host_and_port(one) for one in ("local", "auto", "ray://10.0.0.1:10001")} == {None}


def test_a_front_end_says_at_once_that_no_cluster_is_there() -> None:
    """With the exit code of what a supervisor may try again."""
    words = ["-m", "service", "--handler", "null", "--port", "0", "--cluster", "127.0.0.1:9"]
    process = ServerProcess(words)
    assert process.wait() == 1
    assert "--cluster 127.0.0.1:9: Ray cannot be reached there" in process.log


def test_a_local_cluster_is_not_looked_for() -> None:
    done = run_here(main, "status", "--cluster", "local")
    assert done.returncode == 2
    assert "found by its own server only" in done.stderr


def test_where_others_are_not_known_their_replicas_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from cluster import applications
    from cluster.directory import Directory
    from cluster.ray_cluster import RayCluster

    ended: list[str] = []
    monkeypatch.setattr(applications, "running", lambda: ["release"])
    monkeypatch.setattr(applications, "end", ended.append)
    release = Release.of("null", HandlerSettings(), ServerSettings(), LogSettings(), "")
    front_end = RayCluster(ClusterSettings(cluster="127.0.0.1:9"), release)
    front_end._is_connected = True
    front_end._directory = Directory(_Unanswering(), lambda: None)
    front_end.close()
    assert ended == []
    assert "the replicas go on" in caplog.text


class _Unanswering:
    def call(self, *_: object, **__: object) -> object:
        raise ConnectionError("the registry does not answer")
