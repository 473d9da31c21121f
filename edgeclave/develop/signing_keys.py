"""The keys of a key folder that have certificates, which is what makes them signing keys, and what they have signed."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave.cose import sha256, spki
from edgeclave.errors import PackageError
from edgeclave.keys import list_keys, public_key_path
from edgeclave.ta.package import read_package
from edgeclave.ta.signature import verify_package
from edgeclave.ta.signing import load_chain

MAX_PACKAGES = 200
"""Packages looked at: each is read and verified, at about 0.1 s for one of a Python application."""
MAX_FOLDERS = 20_000
"""Folders looked into, so that a wrong folder costs seconds and not minutes."""
_NO_EXPIRY_YEAR = 9999  # RFC 5280 section 4.1.2.5
_SKIPPED = ("node_modules", "site-packages")


@dataclass(frozen=True)
class SigningKey:
    """signer_id is the SHA-256 of the root's SPKI; `made` is when the key file was written; dates are the leaf's."""

    name: str
    signer_id: bytes
    kind: str
    made: datetime.datetime
    not_before: datetime.datetime
    not_after: datetime.datetime
    private: bool
    packages: tuple[Path, ...]

    @property
    def issued(self) -> str:
        if self.not_after.year == _NO_EXPIRY_YEAR:
            return "without an end"
        return f"certified from {self.not_before:%Y-%m-%d} to {self.not_after:%Y-%m-%d}"


def signing_keys(folder: Path, below: Path) -> list[SigningKey]:
    """All signing keys by name; `below` is searched for packages they have signed.

    Raises:
        ConfigurationError: `bad-key`, `bad-signing-certificate`.
    """
    stored = {key.name: key for key in list_keys(folder)}
    chains = {name: folder / f"{name}.cert.pem" for name in stored if (folder / f"{name}.cert.pem").exists()}
    signed = _packages(below) if chains else {}
    found = []
    for name, path in chains.items():
        chain = load_chain(path)
        root = chain[-1].public_key()
        alone = len(chain) == 1
        found.append(
            SigningKey(
                name=name,
                signer_id=sha256(spki(root)) if isinstance(root, ec.EllipticCurvePublicKey) else b"",
                kind="a root of its own" if alone else f"issued by {chain[-1].subject.rfc4514_string()}",
                made=_written(public_key_path(folder, name)),
                not_before=chain[0].not_valid_before_utc,
                not_after=chain[0].not_valid_after_utc,
                private=stored[name].private,
                packages=tuple(signed.get(_leaf_spki(chain[0].public_key()), ())),
            )
        )
    return found


def _packages(below: Path) -> dict[bytes, list[Path]]:
    """Packages by the key of the leaf that signed them; what does not verify was signed by nobody."""
    found: dict[bytes, list[Path]] = {}
    for path in _package_files(below):
        try:
            leaf = verify_package(read_package(path)).chain[0]
        except PackageError:
            continue
        found.setdefault(_leaf_spki(leaf.public_key()), []).append(path)
    return found


def _package_files(below: Path) -> Iterator[Path]:
    packages = 0
    for number, (parent, folders, names) in enumerate(os.walk(below)):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        for name in sorted(names):
            if name.endswith(".ta") and not name.startswith("."):
                packages += 1
                yield Path(parent, name)
        if number >= MAX_FOLDERS or packages >= MAX_PACKAGES:
            return


def _leaf_spki(key: object) -> bytes:
    return spki(key) if isinstance(key, ec.EllipticCurvePublicKey) else b""


def _written(path: Path) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
