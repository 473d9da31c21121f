"""What one call wants to change. Nothing of it exists until the call has succeeded (DESIGN section 5)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgeclave.enclave.messages import Caller, is_json
from edgeclave.enclave.state import (
    MAX_COUNTERS,
    MAX_ENTRIES,
    MAX_KEY_BYTES,
    MAX_STORED_BYTES,
    MAX_VALUE_BYTES,
    Snapshot,
    entry_bytes,
)

MAX_RESULTS_PER_CALL = 256
MAX_RESULT_BYTES_PER_CALL = 4 << 20
MAX_RESULT_BYTES = 224 << 10
"""One result, in bytes of payload: IoT Hub takes 256 KiB a message, and the sealing needs room in it."""


class ServiceError(Exception):
    """Something the trusted application asked for that cannot be done; the message is its error string."""


class Transaction:
    """Buffered writes, counter steps and results on top of the last snapshot."""

    def __init__(
        self,
        snapshot: Snapshot,
        caller: Caller,
        host_time: int,
        next_sequence: Callable[[str], int],
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        """`next_sequence` gives the number of the next result on an output, or raises ServiceError."""
        self.caller = caller
        self.host_time = host_time
        self.emitted: list[tuple[str, str]] = []
        self._snapshot = snapshot
        self._next_sequence = next_sequence
        self._max_result_bytes = max_result_bytes
        self._writes: dict[str, str | None] = {}
        self._used: tuple[int, int] | None = None
        self._counters: dict[str, int] = {}
        self._emitted_bytes = 0
        self._emitted_on: dict[str, int] = {}

    def get(self, key: str) -> str | None:
        _check_key(key)
        return self._writes[key] if key in self._writes else self._snapshot.entries.get(key)

    def put(self, key: str, value: str) -> None:
        _check_key(key)
        size = len(value.encode())
        if size > MAX_VALUE_BYTES:
            raise ServiceError(f"value too large: {size} bytes, the limit is {MAX_VALUE_BYTES}")
        entries, stored = self._usage(key)
        if entries + 1 > MAX_ENTRIES:
            raise ServiceError(f"storage full: {MAX_ENTRIES} keys is the limit")
        stored += entry_bytes(key, value)
        if stored > MAX_STORED_BYTES:
            raise ServiceError(f"storage full: {stored} bytes, the limit is {MAX_STORED_BYTES}")
        self._used = (entries + 1, stored)
        self._writes[key] = value

    def delete(self, key: str) -> None:
        _check_key(key)
        self._used = self._usage(key)
        self._writes[key] = None

    def increment(self, counter: str) -> int:
        """Returns the value the counter has once the call commits."""
        _check_key(counter)
        known = {*self._snapshot.counters, *self._counters}
        if counter not in known and len(known) >= MAX_COUNTERS:
            raise ServiceError(f"too many counters: {MAX_COUNTERS} is the limit")
        value = self._counters.get(counter, self._snapshot.counters.get(counter, 0)) + 1
        self._counters[counter] = value
        return value

    def emit(self, output: str, payload: str) -> int:
        """Returns the sequence number the result has once the call commits."""
        sequence = self._next_sequence(output) + self._emitted_on.get(output, 0)
        encoded = payload.encode()
        size = len(encoded)
        if size > self._max_result_bytes:
            raise ServiceError(f"result too large: {size} bytes, the limit is {self._max_result_bytes}")
        if len(self.emitted) >= MAX_RESULTS_PER_CALL:
            raise ServiceError(f"too many results in one call: {MAX_RESULTS_PER_CALL} is the limit")
        if self._emitted_bytes + size > MAX_RESULT_BYTES_PER_CALL:
            raise ServiceError(f"too much in one call: {MAX_RESULT_BYTES_PER_CALL} bytes of results is the limit")
        if not is_json(encoded):
            raise ServiceError("the result is not JSON")
        self.emitted.append((output, payload))
        self._emitted_bytes += size
        self._emitted_on[output] = self._emitted_on.get(output, 0) + 1
        return sequence

    @property
    def has_effects(self) -> bool:
        return bool(self.emitted or self._writes or self._counters)

    def changed_snapshot(self) -> Snapshot | None:
        """The snapshot after the call; None when the call left it as it was."""
        if not self._writes and not self._counters:
            return None
        entries = {**self._snapshot.entries, **self._writes}
        return msgspec.structs.replace(
            self._snapshot,
            entries={key: value for key, value in entries.items() if value is not None},
            counters={**self._snapshot.counters, **self._counters},
        )

    def _usage(self, without: str) -> tuple[int, int]:
        """Entries and their bytes as they are now, not counting the key `without`."""
        entries, stored = self._used or (len(self._snapshot.entries), self._snapshot.stored_bytes())
        value = self.get(without)
        return (entries, stored) if value is None else (entries - 1, stored - entry_bytes(without, value))


def _check_key(key: str) -> None:
    if not 0 < len(key.encode()) <= MAX_KEY_BYTES:
        raise ServiceError(f"a key must have 1 to {MAX_KEY_BYTES} bytes")
