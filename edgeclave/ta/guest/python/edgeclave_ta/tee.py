"""Services of the TEE. Each must be granted in `ta.toml`, except storage_protection, caller and emulated.

A service that refuses (not granted, unknown output, over a limit, sealed by another) raises `TeeError`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ._json import to_json

SealPolicy = Literal["unique", "product"]
StorageLevel = Literal["consistent", "rollback-protected"]
Assurance = Literal["none", "confidential", "authenticated"]

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
"""Levels of `log`, as in Python's logging."""


class TeeError(Exception):
    """A service of the TEE refused."""


@dataclass(frozen=True)
class Provenance:
    """Who sealed: identifiers are lower-case hex."""

    policy: SealPolicy
    signer_id: str
    product_id: int
    security_version: int
    unique_id: str


@dataclass(frozen=True)
class Unsealed:
    """What was sealed, and by whom: a product-policy seal may come from an older version of this application."""

    plaintext: str
    sealed_by: Provenance


@dataclass(frozen=True)
class Caller:
    """Who calls. With assurance `none` the name is what the host says, and proves nothing."""

    assurance: Assurance
    name: str


class Services(Protocol):
    """What stands behind this module: the WIT's `tee` in a component, `edgeclave_ta.testing` in a unit test."""

    def seal(self, policy: SealPolicy, plaintext: str, context: str) -> str: ...
    def unseal(self, sealed: str, context: str) -> Unsealed: ...
    def get(self, key: str) -> str | None: ...
    def put(self, key: str, value: str) -> None: ...
    def delete(self, key: str) -> None: ...
    def emit(self, output: str, payload: str) -> int: ...
    def evidence(self, nonce: str) -> str: ...
    def increment(self, counter: str) -> int: ...
    def random(self, count: int) -> str: ...
    def storage_protection(self) -> StorageLevel: ...
    def caller(self) -> Caller: ...
    def emulated(self) -> bool: ...
    def host_time(self) -> int: ...
    def log(self, level: int, message: str) -> None: ...


_services: Services | None = None


def use(services: Services | None) -> Services | None:
    """Puts `services` behind this module and returns what stood there. Called by the component and by the tests."""
    global _services
    before, _services = _services, services
    return before


def seal(plaintext: str, *, context: str = "", policy: SealPolicy = "unique") -> str:
    """Encrypts text so that only this code (`unique`) or this product (`product`) on this device reads it again.

    `context` is bound to it: unseal must name the same. Returns base64url text to keep anywhere.
    """
    if policy not in ("unique", "product"):
        raise ValueError(f"the policy is unique or product, not {policy}")
    return _behind().seal(policy, _text(plaintext), _text(context))


def unseal(sealed: str, *, context: str = "") -> Unsealed:
    """Opens what `seal` returned."""
    return _behind().unseal(_text(sealed), _text(context))


def get(key: str) -> str | None:
    """Reads trusted storage; None when there is nothing under this key."""
    return _behind().get(_text(key))


def put(key: str, value: str) -> None:
    """Writes trusted storage; kept when the call succeeds."""
    _behind().put(_text(key), _text(value))


def delete(key: str) -> None:
    """Removes from trusted storage; done when the call succeeds."""
    _behind().delete(_text(key))


def emit(output: str, payload: Any) -> int:
    """Seals `payload`, anything JSON can hold or a dataclass, to the readers of an output of `ta.toml`.

    Returns its sequence number. It leaves the TEE when the call succeeds.
    """
    return _behind().emit(_text(output), _text(to_json(payload)))


def evidence(nonce: bytes) -> bytes:
    """Evidence about this trusted application over a verifier's nonce (8 to 64 bytes)."""
    return _decode(_behind().evidence(_encode(nonce)))


def increment(counter: str) -> int:
    """Adds one to a counter that never goes down, as strong as `storage_protection` says; returns its value."""
    return _behind().increment(_text(counter))


def random(count: int) -> bytes:
    """Random bytes from the TEE."""
    if not 0 <= count <= 0xFFFFFFFF:
        raise ValueError(f"count must fit 32 bits, not {count}")
    return _decode(_behind().random(count))


def storage_protection() -> StorageLevel:
    """Whether an old whole snapshot of trusted storage could be given back unnoticed (`consistent`) or not."""
    return _behind().storage_protection()


def caller() -> Caller:
    """Who made this call, and how sure that is."""
    return _behind().caller()


def emulated() -> bool:
    """True in the emulator, where root on the device reads everything."""
    return _behind().emulated()


def host_time() -> int:
    """Milliseconds since 1970 as the host says: never for a security decision."""
    return _behind().host_time()


def log(level: int, message: str) -> None:
    """Writes a line to the log of the module that runs this, outside the TEE: no secrets."""
    if not 0 <= level <= 0xFF:
        raise ValueError(f"a level must be between 0 and 255, not {level}")
    _behind().log(level, message.encode("utf-8", "backslashreplace").decode())


def _text(value: str) -> str:
    """Text that is not Unicode would trap in the component's runtime and lose the instance's memory."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, not {type(value).__name__}")
    value.encode()
    return value


def _behind() -> Services:
    if _services is None:
        raise TeeError("there is no TEE here; in a unit test call the application through edgeclave_ta.testing")
    return _services


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
