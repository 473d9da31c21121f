"""Sealed blobs: encrypted for the same trusted application on the same device, and saying in the clear who sealed them.

A blob is dCBOR `[header, salt, ciphertext]`. The header, `["edgeclave/sealed/1", purpose, policy, class, debug,
signer_id, product_id, security_version, unique_id, key check, context check]`, is provenance: it is authenticated
together with the context, and the key depends on it, so nobody who cannot seal can change it. The key check tells a
lost or changed platform key from damaged data, the context check another context. Each blob is encrypted under a key of
its own, derived from the sealing key and 32 random bytes, so that neither the number of blobs nor a rollback of the
device can repeat a nonce.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from typing import Any, cast, get_args

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edgeclave.cose import dcbor
from edgeclave.enclave.hardware import Hardware, SealPolicy
from edgeclave.enclave.key_derivation import ProductKeys, Purpose, unique_key
from edgeclave.errors import EnclaveError
from edgeclave.ta.identity import Identity

FORMAT = "edgeclave/sealed/1"
MAX_SEALED_BYTES = 12 << 20
"""The largest is a state of 1 MiB that holds the answer of a call: 1 MiB, and 4 MiB of results for 64 readers each."""
_SALT_BYTES = 32
_CHECK_BYTES = 8
_NONCE = bytes(12)  # each key encrypts one blob only


@dataclass(frozen=True)
class Provenance:
    """Who sealed a blob."""

    policy: SealPolicy
    platform_class: str
    identity: Identity


class SealingKeys:
    """Seals and unseals for one purpose; the keys are derived once, at the start."""

    def __init__(self, hardware: Hardware, identity: Identity, purpose: Purpose, accept_from: int) -> None:
        """`accept_from`: the lowest security version whose product-policy blobs are opened."""
        self._own = identity
        self._class = hardware.platform_class
        self._purpose = purpose
        self._accept_from = accept_from
        self._unique_key = unique_key(hardware, identity, purpose)
        self._product_keys = ProductKeys(hardware, identity, purpose)

    def seal(self, policy: SealPolicy, plaintext: bytes, context: bytes) -> bytes:
        key = self._key(policy, self._own.security_version)
        header = self._header(Provenance(policy, self._class, self._own), key, context)
        salt = os.urandom(_SALT_BYTES)
        ciphertext = AESGCM(_blob_key(key, salt)).encrypt(_NONCE, plaintext, dcbor([header, context]))
        return dcbor([header, salt, ciphertext])

    def unseal(self, blob: bytes, context: bytes) -> tuple[bytes, Provenance]:
        """Returns the plaintext and who sealed it.

        Raises:
            EnclaveError: `malformed-sealed-data`, `sealed-by-another`, `sealed-in-another-debug-state`,
                `security-version-too-low`, `sealer-too-old`, `platform-key-changed`, `sealed-for-another-context`,
                `sealed-data-damaged`.
        """
        header, salt, ciphertext = _parse_blob(blob)
        provenance, key_check, context_check = self._read_header(header)
        self._check_sealer(provenance)
        key = self._key(provenance.policy, provenance.identity.security_version)
        if not hmac.compare_digest(key_check, _key_check(key)):
            raise _platform_key_changed("it was sealed under another platform key")
        if not hmac.compare_digest(context_check, _context_check(key, context)):
            raise EnclaveError(
                "sealed-for-another-context",
                "sealed data is offered for another context than it was sealed for",
                advice="name the context it was sealed with; state belongs to the slot that stored it",
            )
        try:
            plaintext = AESGCM(_blob_key(key, salt)).decrypt(_NONCE, ciphertext, dcbor([header, context]))
        except InvalidTag:
            raise EnclaveError(
                "sealed-data-damaged",
                "sealed data was altered after it was sealed",
                advice="restore the last stored copy",
            ) from None
        return plaintext, provenance

    def _key(self, policy: SealPolicy, security_version: int) -> bytes:
        return self._unique_key if policy == "unique" else self._product_keys.key(security_version)

    def _header(self, provenance: Provenance, key: bytes, context: bytes) -> bytes:
        sealer = provenance.identity
        return dcbor(
            [
                FORMAT,
                self._purpose,
                provenance.policy,
                provenance.platform_class,
                sealer.debug,
                sealer.signer_id,
                sealer.product_id,
                sealer.security_version,
                sealer.unique_id,
                _key_check(key),
                _context_check(key, context),
            ]
        )

    def _read_header(self, header: bytes) -> tuple[Provenance, bytes, bytes]:
        try:
            fields: list[Any] = cbor2.loads(header)
            kind, purpose, policy, platform_class, debug, signer_id, product_id, version, unique_id, *checks = fields
            key_check, context_check = checks
            sealer = {
                "unique_id": unique_id,
                "signer_id": signer_id,
                "product_id": product_id,
                "security_version": version,
                "debug": debug,
            }
            identity = Identity.from_map(sealer)
        except Exception as error:
            raise _malformed() from error
        well_formed = (
            (kind, purpose) == (FORMAT, self._purpose)
            and policy in get_args(SealPolicy)
            and isinstance(platform_class, str)
            and isinstance(key_check, bytes)
            and isinstance(context_check, bytes)
        )
        if not well_formed:
            raise _malformed()
        return Provenance(cast(SealPolicy, policy), platform_class, identity), key_check, context_check

    def _check_sealer(self, provenance: Provenance) -> None:
        sealer = provenance.identity
        own = self._own
        same = (sealer.signer_id, sealer.product_id) == (own.signer_id, own.product_id)
        if not same or (provenance.policy == "unique" and sealer.unique_id != own.unique_id):
            raise EnclaveError(
                "sealed-by-another",
                "it was sealed by another trusted application",
                advice="give each trusted application its own slot, and unseal with the code that sealed",
            )
        if provenance.platform_class != self._class:
            raise _platform_key_changed(f"it was sealed on a platform of class {provenance.platform_class[:40]}")
        if sealer.debug != own.debug:
            raise EnclaveError(
                "sealed-in-another-debug-state",
                "data sealed with debug on is out of reach with debug off, and the reverse",
                advice="use another slot for the debug build",
            )
        if provenance.policy == "product" and sealer.security_version < self._accept_from:
            raise EnclaveError(
                "sealer-too-old",
                f"security version {sealer.security_version} sealed it, and {self._accept_from} is the lowest accepted",
                advice="set accept_state_from_svn in ta.toml to the version whose state is to be taken over",
            )


def _parse_blob(blob: bytes) -> tuple[bytes, bytes, bytes]:
    if len(blob) > MAX_SEALED_BYTES:
        raise _malformed()
    try:
        parts = cbor2.loads(blob)
        canonical = dcbor(parts) == blob
    except Exception as error:
        raise _malformed() from error
    if not (
        canonical and isinstance(parts, list) and len(parts) == 3 and all(isinstance(part, bytes) for part in parts)
    ):
        raise _malformed()
    header, salt, ciphertext = parts
    if len(salt) != _SALT_BYTES:
        raise _malformed()
    return header, salt, ciphertext


def _blob_key(key: bytes, salt: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=b"edgeclave/sealed/blob").derive(key)


def _key_check(key: bytes) -> bytes:
    return hmac.digest(key, b"edgeclave/sealed/key-check", "sha256")[:_CHECK_BYTES]


def _context_check(key: bytes, context: bytes) -> bytes:
    return hmac.digest(key, b"edgeclave/sealed/context-check" + context, "sha256")[:_CHECK_BYTES]


def _malformed() -> EnclaveError:
    return EnclaveError(
        "malformed-sealed-data",
        "this is not sealed data of this kind, or a part of it only",
        advice="give it back whole, as it was sealed",
    )


def _platform_key_changed(why: str) -> EnclaveError:
    return EnclaveError(
        "platform-key-changed",
        f"the sealed data cannot be opened on this platform: {why}",
        advice="restore the platform's keys; if they are gone for good, remove the slot to start a new history",
    )
