"""The client through TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.client import Client, ConnectionFailedError
from service.client.cli import main
from tests.service.certificates import Authority

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="module")
def shown(authority: Authority) -> dict[str, Path]:
    certificate, key = authority.issue("client")
    return {"tls_ca": authority.certificate, "tls_cert": certificate, "tls_key": key}


@pytest.fixture
def tls_server(serve: Any, scripted: Any, authority: Authority) -> Any:
    certificate, key = authority.issue("server")
    return serve(
        scripted,
        tls_cert=str(certificate),
        tls_key=str(key),
        tls_ca=str(authority.certificate),
    )


@pytest.mark.parametrize("transport", ["framed", "unframed"])
def test_a_client_with_a_certificate_is_served(
    tls_server: Any, shown: dict[str, Path], transport: str
) -> None:
    with Client(HOST, tls_server.port, transport=transport, **shown) as client:  # type: ignore[arg-type]
        for class_id in (3, 1):
            image = b"best=%d" % class_id
            assert client.classify(image).class_id == class_id
        assert client.classify(bytes(1_000_000)).class_id == 0
        assert len(client._pool._idle) == 1


def test_without_a_certificate_nothing_is_answered(tls_server: Any, authority: Authority) -> None:
    with (
        Client(HOST, tls_server.port, tls_ca=authority.certificate) as client,
        pytest.raises(ConnectionFailedError),
    ):
        client.ping()


def test_a_server_of_another_authority_or_name_is_not_talked_to(
    tls_server: Any, shown: dict[str, Path], tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other").certificate
    for change, reason in (({"tls_ca": other}, "certificate"), ({"tls_server_name": "a.b"}, "a.b")):
        with (
            Client(HOST, tls_server.port, **{**shown, **change}) as client,  # type: ignore[arg-type]
            pytest.raises(ConnectionFailedError, match=f"is not accepted .*{reason}"),
        ):
            client.ping()


def test_a_plain_client_is_told_that_the_connection_ended(tls_server: Any) -> None:
    with Client(HOST, tls_server.port) as client, pytest.raises(ConnectionFailedError):
        client.ping()


def test_the_command_takes_the_files(
    tls_server: Any, shown: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        text for name, path in shown.items() for text in (f"--{name.replace('_', '-')}", str(path))
    ]
    assert main(["health", "--port", str(tls_server.port), *files]) == 0
    assert capsys.readouterr().out == "ready\n"
