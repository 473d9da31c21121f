"""Nonces and rate limits of the verifier service, without a service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.cloud.verifier_service.limits import MAX_CLIENTS, RateLimit, client_of
from edgeclave.cloud.verifier_service.nonces import NONCE_BYTES, Nonces

SECRET = bytes(range(32))


@given(st.integers(0, (1 << 40) - 1))
def test_a_nonce_says_when_it_was_issued(now):
    nonce = Nonces(SECRET).issue(now)
    assert len(nonce) == NONCE_BYTES
    assert Nonces(SECRET).issued_at(nonce) == now


@given(st.integers(0, NONCE_BYTES * 8 - 1))
def test_no_bit_may_change(bit):
    changed = bytearray(Nonces(SECRET).issue(1_750_000_000))
    changed[bit // 8] ^= 1 << bit % 8
    assert Nonces(SECRET).issued_at(bytes(changed)) is None


@given(st.binary(max_size=80))
def test_other_bytes(data):
    assert Nonces(SECRET).issued_at(data) is None


def test_no_two_alike_and_no_short_secret():
    assert len({Nonces(SECRET).issue(0) for _ in range(100)}) == 100
    with pytest.raises(ValueError, match="32 bytes"):
        Nonces(b"short")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_bucket_fills_again():
    clock = Clock()
    limit = RateLimit(2, 3, clock)
    assert [limit.admit("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.admit("b") == 0
    clock.now = 0.5
    assert [limit.admit("a"), limit.admit("a")] == [0, 0.5]
    clock.now = 100
    assert [limit.admit("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_memory_is_bounded():
    limit = RateLimit(1, 1, Clock())
    for number in range(MAX_CLIENTS + 5):
        limit.admit(str(number))
    assert len(limit._buckets) == MAX_CLIENTS


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("", "unknown"),
        ("<script>", "unknown"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_who_is_counted_together(address, client):
    assert client_of(address) == client
