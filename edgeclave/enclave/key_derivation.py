"""Every key that depends on who the trusted application is (PROTOCOL section 4).

The info of each derivation names purpose, policy, class of platform, runtime, effective debug state, signer and
product, and then, by policy:

- `unique`: the unique_id, so that only this exact code gets the key;
- `product`: the security version. Keys of lower versions follow from that of a higher one by a one-way step, never the
  reverse, so a process that holds the keys of version 3 cannot compute those of version 4.

65,536 steps would take too long at each start, so the chain has two levels: the high byte of the version walks down one
chain, and each of its values starts another for the low byte. At most 512 steps lead to any version.
"""

from __future__ import annotations

import hmac
from typing import Literal

from edgeclave.cose import dcbor
from edgeclave.enclave.hardware import Hardware, SealPolicy
from edgeclave.errors import EnclaveError
from edgeclave.ta.identity import Identity

Purpose = Literal["seal", "state", "compiled-code"]
_LEVEL = 256
_DOWN = b"edgeclave/version/down"
_ACROSS = b"edgeclave/version/across"


def unique_key(hardware: Hardware, identity: Identity, purpose: Purpose) -> bytes:
    """The key of this exact code, 32 bytes."""
    return hardware.derive(dcbor([*_subject(hardware, identity, purpose, "unique"), identity.unique_id]))


class ProductKeys:
    """The keys of one signer and product, for the security version of `identity` and all below it."""

    def __init__(self, hardware: Hardware, identity: Identity, purpose: Purpose) -> None:
        top = hardware.derive(dcbor([*_subject(hardware, identity, purpose, "product"), "security-versions"]))
        self._high, self._low = divmod(identity.security_version, _LEVEL)
        highest = _steps_down(top, _LEVEL - 1 - self._high)
        self._low_key = _steps_down(_step(highest, _ACROSS), _LEVEL - 1 - self._low)
        self._next_high_key = _step(highest, _DOWN)

    def key(self, security_version: int) -> bytes:
        """The key of one security version, 32 bytes.

        Raises:
            EnclaveError: `security-version-too-low` for a version above one's own.
        """
        high, low = divmod(security_version, _LEVEL)
        if (high, low) > (self._high, self._low):
            raise EnclaveError(
                "security-version-too-low",
                f"data sealed by security version {security_version} is out of reach of a lower one",
                advice="start a release whose security version is not lower than that of the last one",
            )
        if high == self._high:
            return _steps_down(self._low_key, self._low - low)
        start = _step(_steps_down(self._next_high_key, self._high - 1 - high), _ACROSS)
        return _steps_down(start, _LEVEL - 1 - low)


def _subject(hardware: Hardware, identity: Identity, purpose: Purpose, policy: SealPolicy) -> list[object]:
    return [
        "edgeclave/key/1",
        purpose,
        policy,
        hardware.platform_class,
        hardware.runtime_identity(policy),
        identity.debug,
        identity.signer_id,
        identity.product_id,
    ]


def _steps_down(key: bytes, count: int) -> bytes:
    for _ in range(count):
        key = _step(key, _DOWN)
    return key


def _step(key: bytes, label: bytes) -> bytes:
    return hmac.digest(key, label, "sha256")
