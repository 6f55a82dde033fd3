"""Certificates by which the processes of a cluster, a service and its clients know each other."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.errors import RequestError, StorageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, GeneralName

FILES = ("ca.pem", "ca.key", "service.pem", "service.key", "dask.pem", "dask.key")
MOST_DAYS = 36500


def make_certificates(folder: Path, hosts: Sequence[str], days: int) -> list[Path]:
    """Writes a new authority's certificate, and those of the service and of Dask's processes, with their keys.

    Keys can be read by this user only. The service's certificate is good for `hosts`; Dask's processes check only
    that the other side has one of the same authority.

    Raises
    ------
    RequestError
        Some of the files are there already, or a host is no name or address.
    StorageError
        They cannot be written.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise RequestError(
            f"{folder / there[0]} is there already; name another folder, since processes may still use these files."
        )
    if not 1 <= days <= MOST_DAYS:
        raise RequestError(f"days: {days} is not between 1 and {MOST_DAYS}.")
    until = datetime.now(UTC) + timedelta(days=days)
    authority, authority_key = _certificate("Treadle certificate authority", (), until, None)
    made = {"ca": (authority, authority_key)}
    for name in ("service", "dask"):
        made[name] = _certificate(f"Treadle {name}", hosts, until, (authority, authority_key))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, (certificate, key) in made.items():
            _write(folder / f"{name}.pem", _pem(certificate), 0o644)
            _write(folder / f"{name}.key", _pem_of_key(key), 0o600)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written to: {error}.") from error
    return [folder / name for name in FILES]


def _certificate(
    name: str,
    hosts: Sequence[str],
    until: datetime,
    issuer: tuple[Certificate, EllipticCurvePrivateKey] | None,
) -> tuple[Certificate, EllipticCurvePrivateKey]:
    """Of an authority, when there is no issuer."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer[1] if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))  # clocks differ
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=0 if issuer is None else None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=issuer is None,
                crl_sign=issuer is None,
                encipher_only=False,
                decipher_only=False,
            ),
            True,
        )
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), False)
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), False)
    return builder.sign(signer, hashes.SHA256()), key


def _name(host: str) -> GeneralName:
    from cryptography import x509

    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    with contextlib.suppress(UnicodeError):
        name = host.encode("idna").decode()
        if re.fullmatch(r"[A-Za-z0-9*][A-Za-z0-9.-]*", name):
            return x509.DNSName(name)
    raise RequestError(f"host: '{host}' is no name or address of a machine.")


def _pem(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _pem_of_key(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, text: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(text)
