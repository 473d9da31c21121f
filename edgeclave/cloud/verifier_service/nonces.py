"""Nonces that carry the time they were issued, so that any replica can tell age and origin without remembering them.

A nonce has 32 bytes, so that a TPM can carry it too: 5 bytes of time (s since 1970) | 11 random bytes | 16 bytes
HMAC-SHA-256 over both. Age runs from the time in it (PROTOCOL section 6). Nothing says whether a nonce was used before:
the same evidence may be appraised again as long as its nonce is young enough, with the same result.

>>> nonces = Nonces(bytes(32))
>>> nonces.issued_at(nonces.issue(1_750_000_000))
1750000000
>>> nonces.issued_at(bytes(32)) is None
True
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

SECRET_BYTES = 32
NONCE_BYTES = 32
_TIME_BYTES, _RANDOM_BYTES, _MAC_BYTES = 5, 11, 16
_CONTEXT = b"edgeclave/verifier-nonce/1"


class Nonces:
    """Issues and recognises nonces under a secret of SECRET_BYTES that all replicas share."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a nonce secret has {SECRET_BYTES} bytes, not {len(secret)}")
        self._secret = secret

    def issue(self, now: int) -> bytes:
        """A nonce of NONCE_BYTES, issued at `now` (s since 1970)."""
        body = now.to_bytes(_TIME_BYTES, "big") + secrets.token_bytes(_RANDOM_BYTES)
        return body + self._mac(body)

    def issued_at(self, nonce: bytes) -> int | None:
        """When it was issued, in s since 1970; None if it was not issued under this secret."""
        body, mac = nonce[:-_MAC_BYTES], nonce[-_MAC_BYTES:]
        if len(nonce) != NONCE_BYTES or not hmac.compare_digest(mac, self._mac(body)):
            return None
        return int.from_bytes(body[:_TIME_BYTES], "big")

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, _CONTEXT + body, hashlib.sha256)[:_MAC_BYTES]
