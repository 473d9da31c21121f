from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.cose import dcbor
from edgeclave.enclave.hardware import SealPolicy
from edgeclave.enclave.sealing import SealingKeys
from edgeclave.errors import EnclaveError
from edgeclave.ta.identity import Identity

from .conftest import FakeHardware, identity_of

SEALER = SealingKeys(FakeHardware(), identity_of(), "seal", accept_from=3)
BLOB = SEALER.seal("product", b"plaintext", b"context")


def code_of(keys: SealingKeys, blob: bytes, context: bytes = b"context") -> str:
    with pytest.raises(EnclaveError) as refusal:
        keys.unseal(blob, context)
    return refusal.value.code


@pytest.mark.parametrize("policy", ["unique", "product"])
def test_opens_again_with_provenance(policy: SealPolicy) -> None:
    plaintext, provenance = SEALER.unseal(SEALER.seal(policy, b"secret", b"c"), b"c")
    assert plaintext == b"secret"
    assert (provenance.policy, provenance.platform_class, provenance.identity) == (policy, "emulated", identity_of())


def test_two_blobs_of_the_same_plaintext_share_nothing() -> None:
    first, second = (cbor2.loads(SEALER.seal("unique", b"same", b"")) for _ in range(2))
    assert first[1] != second[1]
    assert first[2] != second[2]


@pytest.mark.parametrize(
    ("hardware", "identity", "accept_from", "code"),
    [
        pytest.param(FakeHardware(), identity_of(signer_id=b"t" * 32), 3, "sealed-by-another", id="another signer"),
        pytest.param(FakeHardware(), identity_of(product_id=9), 3, "sealed-by-another", id="another product"),
        pytest.param(FakeHardware(), identity_of(debug=True), 3, "sealed-in-another-debug-state", id="a debug build"),
        pytest.param(FakeHardware(), identity_of(security_version=2), 2, "security-version-too-low", id="a downgrade"),
        pytest.param(FakeHardware(), identity_of(security_version=4), 4, "sealer-too-old", id="an unwanted old sealer"),
        pytest.param(FakeHardware(b"other"), identity_of(), 3, "platform-key-changed", id="another root key"),
        pytest.param(FakeHardware(platform_class="sgx"), identity_of(), 3, "platform-key-changed", id="another class"),
    ],
)
def test_refuses_and_says_why(hardware: FakeHardware, identity: Identity, accept_from: int, code: str) -> None:
    assert code_of(SealingKeys(hardware, identity, "seal", accept_from), BLOB) == code


def test_other_code_opens_what_product_policy_sealed_but_not_unique() -> None:
    other = SealingKeys(FakeHardware(), identity_of(unique_id=b"v" * 32, security_version=5), "seal", accept_from=3)
    plaintext, provenance = other.unseal(BLOB, b"context")
    assert plaintext == b"plaintext"
    assert provenance.identity.security_version == 3
    assert code_of(other, SEALER.seal("unique", b"p", b"context")) == "sealed-by-another"


def test_a_blob_of_another_purpose_is_refused() -> None:
    state_keys = SealingKeys(FakeHardware(), identity_of(), "state", accept_from=3)
    assert code_of(state_keys, BLOB) == "malformed-sealed-data"


def test_another_context_is_refused() -> None:
    assert code_of(SEALER, BLOB, b"other context") == "sealed-for-another-context"


@pytest.mark.parametrize("position", range(0, len(BLOB)))
def test_no_flipped_bit_goes_unnoticed(position: int) -> None:
    altered = bytearray(BLOB)
    altered[position] ^= 1
    with pytest.raises(EnclaveError):
        SEALER.unseal(bytes(altered), b"context")


@pytest.mark.parametrize("length", range(0, len(BLOB), 7))
def test_a_truncated_blob_is_refused(length: int) -> None:
    assert code_of(SEALER, BLOB[:length]) == "malformed-sealed-data"


@pytest.mark.parametrize("part", [pytest.param(1, id="salt"), pytest.param(2, id="ciphertext")])
def test_a_flipped_bit_is_damage_and_no_changed_key(part: int) -> None:
    parts = cbor2.loads(BLOB)
    parts[part] = bytes([parts[part][0] ^ 1]) + parts[part][1:]
    assert code_of(SEALER, dcbor(parts)) == "sealed-data-damaged"


def test_a_header_that_names_a_lower_version_does_not_open_with_a_lower_key() -> None:
    header, salt, ciphertext = cbor2.loads(BLOB)
    fields = cbor2.loads(header)
    fields[7] = 2
    forged = dcbor([dcbor(fields), salt, ciphertext])
    assert code_of(SealingKeys(FakeHardware(), identity_of(), "seal", accept_from=0), forged) == "platform-key-changed"


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(EnclaveError):
        SEALER.unseal(data, b"context")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.binary(max_size=40) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=12),
        max_leaves=20,
    )
)
def test_arbitrary_cbor_is_refused(value: object) -> None:
    with pytest.raises(EnclaveError):
        SEALER.unseal(dcbor(value), b"context")
