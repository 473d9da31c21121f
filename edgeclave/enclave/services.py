"""The services of the TEE, as the WIT names them (DESIGN section 5).

Each must be granted in the signed manifest, except those that only tell about the call and the platform. What changes
something goes into the transaction of the running call. Nothing here knows wasmtime: `edgeclave.enclave.linking` binds
these methods to a component.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Collection

from edgeclave.enclave.hardware import SealPolicy
from edgeclave.enclave.log import TrustedApplicationLog
from edgeclave.enclave.messages import MAX_NONCE_BYTES, MIN_NONCE_BYTES, Caller
from edgeclave.enclave.sealing import Provenance, SealingKeys
from edgeclave.enclave.transaction import ServiceError, Transaction
from edgeclave.errors import EnclaveError
from edgeclave.evidence.eat import StorageLevel

MAX_RANDOM_BYTES = 64 << 10
MAX_PLAINTEXT_BYTES = 1 << 20
MAX_CONTEXT_BYTES = 1024
MAX_SEALED_CHARACTERS = 2 << 20
_MAX_NONCE_CHARACTERS = 4 * MAX_NONCE_BYTES


class GrantMissingError(Exception):
    """A service was asked for that the manifest does not grant; the message names it."""


class Services:
    """What one instance offers its component. Between calls `transaction` is None and nothing may be asked."""

    def __init__(
        self,
        granted: Collection[str],
        sealing_keys: SealingKeys,
        evidence_for: Callable[[bytes, int], bytes],
        log: TrustedApplicationLog,
        *,
        storage_level: StorageLevel,
        is_emulated: bool,
    ) -> None:
        """`evidence_for` makes evidence for a nonce and a host time."""
        self.transaction: Transaction | None = None
        self._granted = frozenset(granted)
        self._sealing_keys = sealing_keys
        self._evidence_for = evidence_for
        self._log = log
        self._storage_level = storage_level
        self._is_emulated = is_emulated

    def seal(self, policy: SealPolicy, plaintext: str, context: str) -> str:
        self._require("seal")
        content = plaintext.encode()
        if len(content) > MAX_PLAINTEXT_BYTES:
            raise ServiceError(f"plaintext too large: {len(content)} bytes, the limit is {MAX_PLAINTEXT_BYTES}")
        return _encode(self._sealing_keys.seal(policy, content, _context(context)))

    def unseal(self, sealed: str, context: str) -> tuple[str, Provenance]:
        self._require("seal")
        blob = _decode("sealed data", sealed, MAX_SEALED_CHARACTERS)
        try:
            plaintext, provenance = self._sealing_keys.unseal(blob, _context(context))
        except EnclaveError as error:
            raise ServiceError(f"{error.code}: {error.what}") from error
        return plaintext.decode(), provenance

    def get(self, key: str) -> str | None:
        return self._call("storage").get(key)

    def put(self, key: str, value: str) -> None:
        self._call("storage").put(key, value)

    def delete(self, key: str) -> None:
        self._call("storage").delete(key)

    def emit(self, output: str, payload: str) -> int:
        return self._call("emit").emit(output, payload)

    def evidence(self, nonce: str) -> str:
        call = self._call("evidence")
        decoded = _decode("nonce", nonce, _MAX_NONCE_CHARACTERS)
        if not MIN_NONCE_BYTES <= len(decoded) <= MAX_NONCE_BYTES:
            raise ServiceError(f"a nonce must have {MIN_NONCE_BYTES} to {MAX_NONCE_BYTES} bytes")
        return _encode(self._evidence_for(decoded, call.host_time))

    def increment(self, counter: str) -> int:
        return self._call("counter").increment(counter)

    def random(self, count: int) -> str:
        self._require("random")
        if count > MAX_RANDOM_BYTES:
            raise ServiceError(f"{count} random bytes at once, the limit is {MAX_RANDOM_BYTES}")
        return _encode(os.urandom(count))

    def storage_protection(self) -> StorageLevel:
        return self._storage_level

    def caller(self) -> Caller:
        return self._running().caller

    def emulated(self) -> bool:
        return self._is_emulated

    def host_time(self) -> int:
        return self._call("host-time").host_time

    def log(self, level: int, message: str) -> None:
        self._require("log")
        self._log.write(level, message)

    def _call(self, service: str) -> Transaction:
        self._require(service)
        return self._running()

    def _running(self) -> Transaction:
        if self.transaction is None:
            raise ServiceError("only available during a call")
        return self.transaction

    def _require(self, service: str) -> None:
        if service not in self._granted:
            raise GrantMissingError(f"service `{service}` is not granted in the manifest")


def _context(context: str) -> bytes:
    encoded = context.encode()
    if len(encoded) > MAX_CONTEXT_BYTES:
        raise ServiceError(f"context too large: {len(encoded)} bytes, the limit is {MAX_CONTEXT_BYTES}")
    return encoded


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(what: str, text: str, most_characters: int) -> bytes:
    if len(text) > most_characters:
        raise ServiceError(f"{what} too large: the limit is {most_characters} characters")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ServiceError(f"{what} is not base64url") from None
