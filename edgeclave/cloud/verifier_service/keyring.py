"""The verifier's key folder, shared by its replicas: signing keys that rotate, and the secret under its nonces.

`NAME.signing.pem` holds an RSA key and its self-signed certificate, `nonce.secret` 32 random bytes; all are readable by
their owner only, or they are refused. Rotation needs no agreement between replicas:

1. make the next key with a certificate that becomes valid later (`edgeclave verifier new-key --from TIME`);
2. restart the replicas, one after the other: all keys of the folder stand in the published set from then on;
3. from TIME on it signs: of the keys whose certificate is valid, the one that became valid last;
4. delete the old file when its last token has expired, or keep it as long as archived tokens are to be read.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from edgeclave.cloud.verifier_service.nonces import SECRET_BYTES
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.tokens import MAX_KEYS, MIN_RSA_BITS, TokenSigner

DEFAULT_FOLDER = Path(".edgeclave/verifier")
FOLDER_VARIABLE = "EDGECLAVE_VERIFIER_KEYS"
KEY_BITS = 2048  # as Microsoft Azure Attestation signs, so that its clients need no change; rotate yearly
CERTIFICATE_DAYS = 3650  # longer than it signs: archived tokens are read for years
_SUFFIX, _SECRET = ".signing.pem", "nonce.secret"
_NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MAX_FILE_BYTES = 32 << 10


@dataclass(frozen=True)
class Keyring:
    """All signing keys, the one that became valid first first, and the secret under the nonces."""

    signers: Sequence[TokenSigner]
    nonce_secret: bytes

    def signer(self, now: int) -> TokenSigner:
        """The key that signs at `now` (s since 1970).

        Raises:
            ConfigurationError: `no-signing-key`.
        """
        for each in reversed(self.signers):
            certificate = each.certificate
            if certificate.not_valid_before_utc.timestamp() <= now < certificate.not_valid_after_utc.timestamp():
                return each
        raise ConfigurationError(
            "no-signing-key", "no signing key is valid now", advice="make one with `edgeclave verifier new-key`"
        )

    def jwks(self) -> dict[str, Any]:
        """All keys (RFC 7517): what relying parties pin."""
        return {"keys": [key for signer in self.signers for key in signer.jwks()["keys"]]}


def load_keyring(folder: Path, issuer: str) -> Keyring:
    """Raises ConfigurationError `no-signing-key`, `bad-verifier-key`, `key-exposed`."""
    paths = sorted(folder.glob(f"*{_SUFFIX}"))
    if not paths or len(paths) > MAX_KEYS:
        raise ConfigurationError(
            "no-signing-key",
            f"a verifier has 1 to {MAX_KEYS} signing keys, here are {len(paths)}",
            where=str(folder),
            advice=f"make one with `edgeclave verifier new-key NAME --keys {folder}`",
        )
    signers = [_signer(path, issuer) for path in paths]
    secret = _private_bytes(folder / _SECRET)
    if len(secret) != SECRET_BYTES:
        raise _bad(folder / _SECRET, f"it must have {SECRET_BYTES} bytes")
    return Keyring(sorted(signers, key=lambda each: each.certificate.not_valid_before_utc), secret)


def new_key(folder: Path, name: str, begin: datetime) -> Path:
    """Makes a signing key that signs from `begin` on, and the nonce secret where there is none; returns the file.

    Raises:
        ConfigurationError: `bad-key-name`, `key-exists`, `cannot-write`.
    """
    if not _NAME.match(name):
        raise ConfigurationError("bad-key-name", "not a name of a key", where=name, advice="use letters, digits, . _ -")
    key = rsa.generate_private_key(65537, KEY_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edgeclave verifier {name}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=CERTIFICATE_DAYS))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    path = folder / f"{name}{_SUFFIX}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        if not (folder / _SECRET).exists():
            _write(folder / _SECRET, secrets.token_bytes(SECRET_BYTES))
        _write(path, pem)
    except FileExistsError as error:
        raise ConfigurationError(
            "key-exists", "there is such a key", where=str(path), advice="choose another name"
        ) from error
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def now_utc() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _signer(path: Path, issuer: str) -> TokenSigner:
    pem = _private_bytes(path)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificate(pem)
    except (ValueError, TypeError) as error:
        raise _bad(path, "not a PEM key with its certificate") from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < MIN_RSA_BITS:
        raise _bad(path, f"not an RSA key of {MIN_RSA_BITS} bits or more")
    if certificate.public_key() != key.public_key():
        raise _bad(path, "the certificate is of another key")
    return TokenSigner(issuer, key, certificate)


def _private_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise ConfigurationError(
                    "key-exposed",
                    "other users may read the key",
                    where=str(path),
                    advice=f"make a new one if they did, and run `chmod 600 {path}`",
                )
            return file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise _bad(path, f"cannot read: {error.strerror}") from error


def _bad(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        "bad-verifier-key", what, where=str(path), advice="make one with `edgeclave verifier new-key`"
    )


def _cannot_write(path: Path, error: OSError) -> ConfigurationError:
    advice = "make room, or name a folder that you may write with --keys"
    return ConfigurationError("cannot-write", f"cannot write: {error.strerror}", where=str(path), advice=advice)
