"""A certificate authority for tests, and certificates of clients and servers."""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID = datetime.timedelta(days=1)
_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Signs certificates for 127.0.0.1, and writes them with their keys to a folder.

    Args:
        folder: where the files go.
        name: its own name.
        parent: signs its certificate; None for itself.
        key_usage: whether its certificate says that it may sign others, as RFC 5280 wants it.

    Attributes:
        certificate: file of its own certificate.
    """

    def __init__(
        self, folder: Path, name: str, parent: Authority | None = None, *, key_usage: bool = True
    ) -> None:
        self._folder = folder
        self._name = _name(name)
        self._key_usage = key_usage
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = folder / f"{name}.pem"
        signer = self if parent is None else parent
        signed = signer._sign(self._name, self._key.public_key(), authority=True)
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def intermediate(self, name: str) -> Authority:
        """Another authority, whose certificate this one has signed."""
        return Authority(self._folder, name, self)

    def issue(self, name: str, password: bytes | None = None) -> tuple[Path, Path]:
        """Files of a certificate and of its key, which `password` encrypts."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        signed = self._sign(_name(name), key.public_key(), authority=False)
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        encryption = (
            serialization.NoEncryption()
            if password is None
            else serialization.BestAvailableEncryption(password)
        )
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
        return certificate, key_file

    def _sign(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, *, authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        own_key = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _VALID)
            .not_valid_after(now + _VALID)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_key),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )
        if authority and self._key_usage:
            builder = builder.add_extension(_SIGNS, critical=True)
        if not authority:
            address = x509.IPAddress(ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
