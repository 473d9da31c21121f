"""What a TEE gives to the enclave inside it. One class per TEE implements it; nothing else knows which one runs."""

from __future__ import annotations

from typing import Literal, Protocol

from edgeclave.evidence.collection import Item

SealPolicy = Literal["unique", "product"]
DERIVED_KEY_BYTES = 32


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
