from __future__ import annotations

import hashlib

import pytest

from edgeclave.enclave.hardware import Exchange, SealPolicy
from edgeclave.errors import EnclaveError
from edgeclave.evidence.collection import Item
from edgeclave.evidence.eat import EpochSource
from edgeclave.ta.identity import Identity


class FakeHardware:
    """A TEE whose every property a test can set; derivation is a hash, which is enough to tell keys apart."""

    def __init__(
        self,
        root: bytes = b"root",
        platform_class: str = "emulated",
        runtimes: tuple[bytes, bytes] = (b"unique runtime", b"product runtime"),
        *,
        debug: bool = False,
    ) -> None:
        self.platform_class = platform_class
        self.emulated = True
        self.debug = debug
        self.counter_source: EpochSource = "none"
        self._root: bytes | None = root
        self._runtimes = runtimes

    def runtime_identity(self, policy: SealPolicy) -> bytes:
        return self._runtimes[policy == "product"]

    def derive(self, info: bytes) -> bytes:
        if self._root is None:
            raise EnclaveError("derivation-closed", "closed")
        return hashlib.sha256(self._root + info).digest()

    def close_derivation(self) -> None:
        self._root = None

    def counter(self, counter_id: bytes, exchange: Exchange) -> None:
        return None

    def quote(self, report_data: bytes) -> Item:
        return Item("application/example", report_data)


def identity_of(
    *,
    unique_id: bytes = b"u" * 32,
    signer_id: bytes = b"s" * 32,
    product_id: int = 1,
    security_version: int = 3,
    debug: bool = False,
) -> Identity:
    return Identity(unique_id, signer_id, product_id, security_version, debug)


@pytest.fixture
def hardware() -> FakeHardware:
    return FakeHardware()


@pytest.fixture
def identity() -> Identity:
    return identity_of()
