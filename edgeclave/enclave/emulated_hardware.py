"""The emulator's imitation of a TEE: its two secrets come from the host by an inherited descriptor, and whether it has
a counter.

Root on the device can read them, which is why its evidence says `emulated` and every verifier refuses that unless its
policy names it. Everything after this file is the same as on a real TEE.
"""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta

from edgeclave.cose import sha256
from edgeclave.enclave.emulated_counter import EmulatedCounter
from edgeclave.enclave.hardware import DERIVED_KEY_BYTES, Exchange, SealPolicy
from edgeclave.errors import EnclaveError
from edgeclave.evidence.collection import Item
from edgeclave.evidence.eat import EpochSource
from edgeclave.evidence.emulator import make_quote, quote_item
from edgeclave.evidence.runtime import runtime_digest

ROOT_BYTES = 32
_MAX_SECRETS_BYTES = 4096
_RUNTIME_PRODUCT = sha256(b"edgeclave emulator")  # a TEE would name the runtime's signer here


class EmulatorSecrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the host hands over, as MessagePack: the root of all derived keys, and the key that signs quotes (PKCS8)."""

    root: Annotated[bytes, Meta(min_length=ROOT_BYTES, max_length=ROOT_BYTES)]
    attestation_key: bytes
    counter: bool = False


class EmulatedHardware:
    """Implements `Hardware` from two secrets."""

    platform_class = "emulated"
    emulated = True

    def __init__(self, secrets: EmulatorSecrets, *, debug: bool = False) -> None:
        """`debug`: the process is open to debuggers. Raises EnclaveError `bad-hardware-secrets`."""
        try:
            key = serialization.load_der_private_key(secrets.attestation_key, password=None)
        except ValueError as error:
            raise _bad_secrets() from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise _bad_secrets()
        self.debug = debug
        self._attestation_key = key
        self._root: bytes | None = secrets.root
        self._runtime_digest = runtime_digest()
        self.counter_source: EpochSource = EmulatedCounter.source if secrets.counter else "none"

    @classmethod
    def from_descriptor(cls, descriptor: int, *, debug: bool = False) -> EmulatedHardware:
        """Reads the secrets and closes the descriptor. Raises EnclaveError `bad-hardware-secrets`."""
        try:
            content = os.pread(descriptor, _MAX_SECRETS_BYTES, 0)
            return cls(msgspec.msgpack.decode(content, type=EmulatorSecrets), debug=debug)
        except msgspec.DecodeError as error:
            raise _bad_secrets() from error
        finally:
            os.close(descriptor)

    def runtime_identity(self, policy: SealPolicy) -> bytes:
        return self._runtime_digest if policy == "unique" else _RUNTIME_PRODUCT

    def counter(self, counter_id: bytes, exchange: Exchange) -> EmulatedCounter | None:
        return None if self.counter_source == "none" else EmulatedCounter(self._open_root(), counter_id, exchange)

    def derive(self, info: bytes) -> bytes:
        return HKDF(algorithm=hashes.SHA256(), length=DERIVED_KEY_BYTES, salt=None, info=info).derive(self._open_root())

    def close_derivation(self) -> None:
        self._root = None

    def _open_root(self) -> bytes:
        if self._root is None:
            raise EnclaveError("derivation-closed", "no more keys can be derived after the start")
        return self._root

    def quote(self, report_data: bytes) -> Item:
        return quote_item(make_quote(self._attestation_key, report_data, self._runtime_digest, self.debug))


def _bad_secrets() -> EnclaveError:
    return EnclaveError(
        "bad-hardware-secrets",
        "the emulator's root key or attestation key cannot be used",
        advice="restore the emulator's folder from a backup; removing it makes another device of this one",
    )
