"""The client's side of TLS, by the ssl module."""

from __future__ import annotations

import ssl

from service.wire.tls import VERIFY_FLAGS


def client_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """TLS 1.2 or later, with the server's certificate and name checked; None where all are None.

    Args:
        ca: file of the authorities that the server's certificate may come from; None for the
            system's.
        cert: file of the client's own certificate chain, for servers that ask for one.
        key: file of its private key, without a password.

    Raises:
        ValueError: a file cannot be read or is none of its kind, or one of `cert` and `key` is
            missing.
    """
    if ca is None and cert is None and key is None:
        return None
    if (cert is None) != (key is None):
        raise ValueError("tls_cert and tls_key go together; give both or none")
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ValueError(
            f"tls_ca {ca}: {_reason(error, 'no certificates in PEM format')}"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags = VERIFY_FLAGS
    if cert is not None:
        try:
            context.load_cert_chain(cert, key, _no_password)
        except OSError as error:
            reason = _reason(error, "not a certificate and its key in PEM format")
            raise ValueError(f"tls_cert {cert}, tls_key {key}: {reason}") from error
    return context


def _reason(error: OSError, otherwise: str) -> str:
    if isinstance(error, ssl.SSLError):
        return otherwise
    return error.strerror or otherwise


def _no_password() -> str:
    raise ValueError("tls_key: the key is encrypted; give one without a password")
