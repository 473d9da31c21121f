"""What a TEE gives to the enclave inside it. One class per TEE implements it; nothing else knows which one runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from edgeclave.errors import EnclaveError
from edgeclave.evidence.collection import Item
from edgeclave.evidence.eat import EpochSource

SealPolicy = Literal["unique", "product"]
DERIVED_KEY_BYTES = 32

Exchange = Callable[[bytes, bytes | None], bytes]
"""Sends the counter a command by way of the host, which first stores the state given with it; returns the answer."""


class CounterError(EnclaveError):
    """The counter did not do what was asked. Whether it moved is not known, so that the enclave must end."""


class Counter(Protocol):
    """A monotonic counter outside the enclave, spoken to through an untrusted host: in the NV memory of a TPM, say.

    With its value it holds the SHA-256 of the state that the value stands for. A bare number would not do: a host could
    have several states prepared for the same next value, commit one, and offer another later.
    """

    def read(self) -> tuple[int, bytes]:
        """Value and digest now; 0 and 32 zero bytes before the first increment. Raises CounterError."""

    def increment(self, expected: int, keep: bytes) -> None:
        """Raises it by one, to stand for the state `keep`, if it stands at `expected`; the host stores `keep` before.

        Durable when it returns.

        Raises:
            CounterError: `instance-superseded` when it stands elsewhere.
        """


class Hardware(Protocol):
    """The sealing root and the quoting of one TEE."""

    @property
    def platform_class(self) -> str:
        """One of the classes of PROTOCOL section 3, such as `emulated`."""

    @property
    def emulated(self) -> bool:
        """True when software only imitates the TEE."""

    @property
    def debug(self) -> bool:
        """Platform or runtime is open to debugging; joins the manifest's flag in the effective debug state."""

    @property
    def counter_source(self) -> EpochSource:
        """What kind of counter there is, `none` without."""

    def counter(self, counter_id: bytes, exchange: Exchange) -> Counter | None:
        """The counter of this name (32 bytes), None without any; to be asked for before the derivation is closed."""

    def runtime_identity(self, policy: SealPolicy) -> bytes:
        """Who this runtime is: its exact measurement (`unique`), or what an update leaves the same (`product`)."""

    def derive(self, info: bytes) -> bytes:
        """32 bytes that only this TEE on this device gives for this `info`.

        Raises:
            EnclaveError: `derivation-closed`.
        """

    def close_derivation(self) -> None:
        """Forgets the root, so that an enclave taken over later can reach the keys already derived and no others."""

    def quote(self, report_data: bytes) -> Item:
        """The platform's own evidence over 64 bytes of report data."""
