"""Trusted storage of a slot: which snapshot is the newest, and how the next one takes its place (PROTOCOL section 5).

Without a counter the host says which snapshot is the newest, and is believed: level `consistent`.

With one, the counter's value is the number of commits so far and its digest that of the newest snapshot, and only that
snapshot is opened: level `rollback-protected`. Every commit, one at each start and one for each call, recipient set or
beacon that changes the state, is made in this order:

1. the successor, numbered one higher and holding whatever the commit will let out, goes to the host, which stores it
   beside the one in force as the pending state;
2. the counter moves on to that number and that snapshot's digest;
3. what was committed leaves the enclave; the host stores it and makes the pending state the one in force.

Nothing of the commit leaves before 2, so that a host that ends the enclave early has learnt nothing; and whichever
process is killed in between, the next start finds exactly one snapshot that fits:

| killed                | in force | pending | counter | the next start                                               |
|-----------------------|----------|---------|---------|--------------------------------------------------------------|
| before 1 is stored    | n        | -       | n       | goes on from n: the commit never was                         |
| between 1 and 2       | n        | n + 1   | n       | goes on from n, the pending one is void: it never was        |
| between 2 and 3       | n        | n + 1   | n + 1   | goes on from n + 1, and first hands out again what it let out |
| before 3 is stored    | n        | n + 1   | n + 1   | the same                                                     |
| after                 | n + 1    | -       | n + 1   | goes on from n + 1                                           |

That first step of the next start is stored before its own commit replaces the pending state. Nothing is lost and
nothing is done twice, because the answer of the call lies in n + 1, under the id of the call.

Calls that change no state, those that only emit included, do not move the counter. A second instance of the slot can
start at any time; the counter then no longer stands where the first one left it, so that one cannot commit any more.
"""

from __future__ import annotations

import hmac

import msgspec

from edgeclave.cose import dcbor, sha256
from edgeclave.enclave.hardware import Counter, Hardware
from edgeclave.enclave.messages import Released
from edgeclave.enclave.sealing import Provenance
from edgeclave.enclave.state import Snapshot, StateVault
from edgeclave.errors import EnclaveError
from edgeclave.evidence.eat import StorageLevel
from edgeclave.ta.identity import Identity


def storage_level(hardware: Hardware) -> StorageLevel:
    """What trusted storage can promise on this platform."""
    return "consistent" if hardware.counter_source == "none" else "rollback-protected"


def counter_id(hardware: Hardware, identity: Identity, slot: str) -> bytes:
    """Names the counter of a slot (32 bytes); versions of a product share it, as they share the state."""
    return sha256(
        dcbor(
            [
                "edgeclave/counter/1",
                hardware.platform_class,
                identity.debug,
                identity.signer_id,
                identity.product_id,
                slot,
            ]
        )
    )


class TrustedStorage:
    """`snapshot` is the one in force, and `sealed_by` says who sealed it, None for the very first."""

    def __init__(self, vault: StateVault, counter: Counter | None) -> None:
        self.snapshot = Snapshot()
        self.sealed_by: Provenance | None = None
        self._vault = vault
        self._counter = counter

    def open(self, state: bytes | None, pending: bytes | None) -> Released | None:
        """Puts the newest snapshot in force; returns what its commit let out if the host did not get to store that.

        Raises:
            EnclaveError: `state-rolled-back`, `counter-missing`, `counter-lost`; see `StateVault.open`.
            CounterError: the counter cannot be read.
        """
        if self._counter is None:
            self.snapshot = self._open(state)
            if self.snapshot.count:
                raise EnclaveError(
                    "counter-missing",
                    "this state is bound to a counter, and the platform offers none",
                    advice="turn the counter on again, or restore the device it was on; without it nothing can tell "
                    "whether this state is the newest",
                )
            return None
        value, digest = self._counter.read()
        kept = self._open(state)
        if _is_newest(kept, value, digest):
            self.snapshot = msgspec.structs.replace(kept, released=None)
            return None
        late = None if pending is None else self._open(pending)
        if late is not None and _is_newest(late, value, digest):
            self.snapshot = msgspec.structs.replace(late, released=None)
            return late.released
        raise _not_the_newest(max(kept.count, 0 if late is None else late.count), value)

    def commit(self, changed: Snapshot, released: Released) -> bytes:
        """Puts a successor in force and returns it sealed.

        Raises:
            CounterError: what is in force now is decided at the next start, so that this enclave must end.
        """
        if self._counter is None:
            sealed, self.snapshot = self._vault.seal(changed)
            return sealed
        value = self.snapshot.count
        sealed, counted = self._vault.seal(msgspec.structs.replace(changed, count=value + 1, released=released))
        self._counter.increment(value, sealed)
        self.snapshot = msgspec.structs.replace(counted, released=None)
        return sealed

    def _open(self, sealed: bytes | None) -> Snapshot:
        if sealed is None:
            return Snapshot()
        snapshot, self.sealed_by = self._vault.open(sealed)
        return snapshot


def _is_newest(snapshot: Snapshot, value: int, digest: bytes) -> bool:
    """`previous` of a snapshot that was opened is the digest of its own sealed form."""
    return snapshot.count == value and (value == 0 or hmac.compare_digest(snapshot.previous or b"", digest))


def _not_the_newest(offered: int, value: int) -> EnclaveError:
    if offered > value:
        return EnclaveError(
            "counter-lost",
            f"the state is number {offered} and the counter only at {value}: the counter was lost or replaced",
            advice="restore the counter with the platform's keys; if it is gone for good, use a new slot",
        )
    what = f"the state offered is number {offered}" if offered else "no state of this counter is offered"
    return EnclaveError(
        "state-rolled-back",
        f"{what}, and the counter proves that another one, number {value}, was committed last",
        advice="give it the newest stored state, not a backup; if that is gone for good, use a new slot",
    )
