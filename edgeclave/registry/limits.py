"""Every limit on what a registry may do to us."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RegistryLimits:
    """Times in seconds, sizes in bytes. The sizes of a package's own parts are in `edgeclave.ta.package`.

    Attributes:
        connect_seconds: until a connection with TLS stands.
        stall_seconds: without a single byte; a weak radio link comes back within it.
        answer_seconds: for one small answer, however slowly it drips.
        slowest_bytes_per_second: of an upload; 16 KiB are what a poor radio link carries.
        total_seconds: of a whole push or pull; what was pulled is kept for the next one.
        answer_bytes: of a token, an error or another small answer.
        redirects: of one request; registries need one.
        attempts: in a row that bring nothing new.
        first_wait_seconds, longest_wait_seconds: between attempts; a registry that asks for more is left alone.
        chunk_bytes: of an upload; what is smaller goes in one piece.
        reserve_bytes: of the disk that a pull leaves free, for the state of whatever else runs there.
    """

    connect_seconds: float = 20
    stall_seconds: float = 30
    answer_seconds: float = 60
    slowest_bytes_per_second: float = 16 << 10
    total_seconds: float = 3600
    answer_bytes: int = 256 << 10
    redirects: int = 5
    attempts: int = 5
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 30
    chunk_bytes: int = 8 << 20
    reserve_bytes: int = 16 << 20
