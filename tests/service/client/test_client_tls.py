"""The client through TLS."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.client import Client, ConnectionFailedError
from service.client.client_command import main
from tests.service.certificates import Authority
from tests.service.client.clients import BOTH

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


@BOTH
@pytest.mark.parametrize("transport", ["framed", "unframed"])
def test_a_client_with_a_certificate_is_served(
    kind: Any, tls_server: Any, shown: dict[str, Path], transport: str
) -> None:
    with kind(HOST, tls_server.port, transport=transport, **shown) as client:
        for class_id in (3, 1):
            image = b"best=%d" % class_id
            assert client.classify(image).class_id == class_id
        assert client.classify(bytes(1_000_000)).class_id == 0
        assert len(client._pool._idle._kept) == 1


@BOTH
def test_without_a_certificate_nothing_is_answered(
    kind: Any, tls_server: Any, authority: Authority
) -> None:
    with (
        kind(HOST, tls_server.port, tls_ca=authority.certificate) as client,
        pytest.raises(ConnectionFailedError),
    ):
        client.ping()


@BOTH
def test_a_server_of_another_authority_or_name_is_not_talked_to(
    kind: Any, tls_server: Any, shown: dict[str, Path], tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other").certificate
    for change, reason in (({"tls_ca": other}, "certificate"), ({"tls_server_name": "a.b"}, "a.b")):
        with (
            kind(HOST, tls_server.port, **{**shown, **change}) as client,
            pytest.raises(ConnectionFailedError, match=f"is not accepted .*{reason}"),
        ):
            client.ping()


@BOTH
def test_a_plain_client_is_told_that_the_connection_ended(kind: Any, tls_server: Any) -> None:
    with kind(HOST, tls_server.port) as client, pytest.raises(ConnectionFailedError):
        client.ping()


def test_the_command_takes_the_files(
    tls_server: Any, shown: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        text for name, path in shown.items() for text in (f"--{name.replace('_', '-')}", str(path))
    ]
    assert main(["health", "--port", str(tls_server.port), *files]) == 0
    assert capsys.readouterr().out == "ready\n"


def test_an_authority_without_the_extensions_of_rfc_5280_is_taken_on_every_python(
    serve: Any, scripted: Any, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "authority", key_usage=False)
    (certificate, key), own = authority.issue("server"), authority.issue("client")
    ca = str(authority.certificate)
    server = serve(scripted, tls_cert=str(certificate), tls_key=str(key), tls_ca=ca)
    with Client(HOST, server.port, tls_ca=ca, tls_cert=own[0], tls_key=own[1]) as client:
        client.ping()
    with (
        socket.create_connection((HOST, server.port)) as sock,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        _strict(ca, own).wrap_socket(sock, server_hostname=HOST)


def test_an_intermediate_authority_may_be_the_only_one_that_is_trusted(
    serve: Any, scripted: Any, tmp_path: Path
) -> None:
    root = Authority(tmp_path, "root")
    intermediate = root.intermediate("intermediate")
    certificate, key = intermediate.issue("server")
    own_certificate, own_key = intermediate.issue("client")
    ca = str(intermediate.certificate)
    server = serve(scripted, tls_cert=str(certificate), tls_key=str(key), tls_ca=ca)
    with Client(HOST, server.port, tls_ca=ca, tls_cert=own_certificate, tls_key=own_key) as client:
        client.ping()


def test_the_certificates_of_the_documentation_are_served_and_pass_strict_verification(
    serve: Any, scripted: Any, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "tls.md").read_text(encoding="utf-8")
    found = re.search(r"^```sh\n(openssl req -x509 .*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found
    subprocess.run(["sh", "-ec", found.group(1)], cwd=tmp_path, check=True, capture_output=True)
    ca = str(tmp_path / "ca.pem")
    server = serve(
        scripted,
        tls_cert=str(tmp_path / "server.pem"),
        tls_key=str(tmp_path / "server.key"),
        tls_ca=ca,
    )
    me = tmp_path / "me.pem", tmp_path / "me.key"
    with Client(HOST, server.port, tls_ca=ca, tls_cert=me[0], tls_key=me[1]) as client:
        client.ping()
    with (
        socket.create_connection((HOST, server.port)) as sock,
        _strict(ca, me).wrap_socket(sock, server_hostname=HOST) as connection,
    ):
        assert connection.version() == "TLSv1.3"
    impostor = serve(scripted, tls_cert=str(me[0]), tls_key=str(me[1]))
    with (
        Client(HOST, impostor.port, tls_ca=ca, retries=0) as client,
        pytest.raises(ConnectionFailedError, match="certificate"),
    ):
        client.ping()


def _strict(ca: str, own: tuple[Path, Path]) -> ssl.SSLContext:
    """A client's context that wants all that RFC 5280 does, on every Python."""
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(*own)
    return context
