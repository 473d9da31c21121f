"""Trusted storage: one sealed snapshot of everything an instance must find again (PROTOCOL section 5).

Entries and counters of the trusted application, the epoch record that lets the next instance name this one, and the
highest recipient sets and beacon seen. It is sealed as a whole, so parts of two snapshots cannot be mixed; each names
the digest of the one before. Whether an older whole snapshot can be told from the newest is for
`edgeclave.enclave.storage`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from edgeclave.cose import dcbor, load_dcbor, sha256
from edgeclave.enclave.messages import Released
from edgeclave.enclave.sealing import Provenance, SealingKeys
from edgeclave.errors import EnclaveError
from edgeclave.results.beacon import Beacon
from edgeclave.wire import Count, Digest, Label, RecipientsVersion, from_map, to_map

MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 256 << 10
MAX_ENTRIES = 4096
MAX_COUNTERS = 256
MAX_STORED_BYTES = 1 << 20
"""Keys and values together: the whole snapshot is sealed and stored again with each call that changes it."""

_FORMAT = 1


class EpochRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run of one instance: its number, its public signing key (SPKI), the digest of its open record."""

    number: Count
    signing_key: Annotated[bytes, Meta(max_length=128)]
    open_record: Digest


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`version` counts snapshots of this slot from 1; `previous` is the SHA-256 of the sealed blob before this one.

    `count` is where the counter stands while this is the newest snapshot, 0 when none was asked; `released` is what
    the commit that made it let out, and stands in counted snapshots only.
    """

    format: Annotated[int, Meta(ge=_FORMAT, le=_FORMAT)] = _FORMAT
    version: Count = 0
    previous: Digest | None = None
    epoch: EpochRecord | None = None
    entries: dict[str, str] = {}
    counters: dict[str, Count] = {}
    recipients: dict[Label, RecipientsVersion] = {}
    beacon: Beacon | None = None
    count: Count = 0
    released: Released | None = None

    def stored_bytes(self) -> int:
        """What the entries take of MAX_STORED_BYTES."""
        return sum(entry_bytes(key, value) for key, value in self.entries.items())


def entry_bytes(key: str, value: str) -> int:
    return len(key.encode()) + len(value.encode())


class StateVault:
    """Seals and opens the snapshots of one slot."""

    def __init__(self, keys: SealingKeys, slot: str) -> None:
        self._keys = keys
        self._context = dcbor(["edgeclave/state/1", slot])

    def open(self, sealed: bytes) -> tuple[Snapshot, Provenance]:
        """Returns the snapshot, ready for its successor, and who sealed it.

        Raises:
            EnclaveError: see `SealingKeys.unseal`; `malformed-state`.
        """
        plaintext, provenance = self._keys.unseal(sealed, self._context)
        try:
            snapshot = from_map(load_dcbor(plaintext), Snapshot)
        except Exception as error:
            raise EnclaveError(
                "malformed-state",
                "the stored state is of a form this release does not know",
                advice="start the release that stored it, or a newer one",
            ) from error
        return msgspec.structs.replace(snapshot, previous=sha256(sealed)), provenance

    def seal(self, snapshot: Snapshot) -> tuple[bytes, Snapshot]:
        """Returns the sealed successor of `snapshot` and the snapshot from which to go on."""
        stored = msgspec.structs.replace(snapshot, version=snapshot.version + 1)
        sealed = self._keys.seal("product", dcbor(to_map(stored)), self._context)
        return sealed, msgspec.structs.replace(stored, previous=sha256(sealed))
