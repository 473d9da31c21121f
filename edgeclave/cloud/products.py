"""The heads of all products on all platforms: kept in memory while a batch is processed, stored with it."""

from __future__ import annotations

from edgeclave import cose
from edgeclave.cloud.heads import HeadStore
from edgeclave.evidence.verifier import AttestationResult
from edgeclave.results.stream import Pending, StreamHeads

REMEMBERED = 4096  # products in memory between batches


class Products:
    """`heads_of` may be changed until `store` or `forget`."""

    def __init__(self, store: HeadStore) -> None:
        self._store = store
        self._heads: dict[bytes, StreamHeads] = {}
        self._touched: set[bytes] = set()

    def heads_of(self, key: bytes) -> StreamHeads:
        if key not in self._heads:
            state = self._store.stream(key)
            self._heads[key] = StreamHeads() if state is None else StreamHeads.restore(state)
        self._touched.add(key)
        return self._heads[key]

    def store(self) -> None:
        """Writes what was touched, inside the caller's transaction."""
        for key in self._touched:
            self._store.set_stream(key, self._heads[key].export())
        self._touched.clear()
        if len(self._heads) > REMEMBERED:
            self._heads.clear()

    def forget(self) -> None:
        """Drops what was not stored, after a transaction that failed."""
        self._heads.clear()
        self._touched.clear()

    def pending(self) -> list[Pending]:
        """Everything that is missing or waits for a person, in all streams."""
        return [item for state in self._store.streams() for item in StreamHeads.restore(state).pending()]


def product_key(attested: AttestationResult) -> bytes:
    """Names one product on one platform; the version is no part of it."""
    identity = attested.identity
    return cose.sha256(
        cose.dcbor(
            ["edgeclave/stream/1", attested.platform_instance, identity.signer_id, identity.product_id],
        )
    )
