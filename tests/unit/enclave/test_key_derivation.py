from __future__ import annotations

import pytest

from edgeclave.enclave.key_derivation import ProductKeys, Purpose, unique_key
from edgeclave.errors import EnclaveError
from edgeclave.ta.identity import Identity

from .conftest import FakeHardware, identity_of

VERSIONS = (0, 1, 2, 254, 255, 256, 257, 511, 512, 4095, 0xFFFE, 0xFFFF)


@pytest.mark.parametrize(
    ("hardware", "identity", "purpose"),
    [
        pytest.param(FakeHardware(b"other root"), identity_of(), "seal", id="another device"),
        pytest.param(FakeHardware(platform_class="sgx"), identity_of(), "seal", id="another class of platform"),
        pytest.param(FakeHardware(runtimes=(b"x", b"product runtime")), identity_of(), "seal", id="another runtime"),
        pytest.param(FakeHardware(), identity_of(debug=True), "seal", id="debug on"),
        pytest.param(FakeHardware(), identity_of(signer_id=b"t" * 32), "seal", id="another signer"),
        pytest.param(FakeHardware(), identity_of(product_id=2), "seal", id="another product"),
        pytest.param(FakeHardware(), identity_of(unique_id=b"v" * 32), "seal", id="another code"),
        pytest.param(FakeHardware(), identity_of(), "state", id="another purpose"),
        pytest.param(FakeHardware(), identity_of(), "compiled-code", id="the purpose of the cache"),
    ],
)
def test_each_field_changes_the_unique_key(hardware: FakeHardware, identity: Identity, purpose: Purpose) -> None:
    assert unique_key(hardware, identity, purpose) != unique_key(FakeHardware(), identity_of(), "seal")


@pytest.mark.parametrize(
    ("hardware", "identity", "purpose"),
    [
        pytest.param(FakeHardware(b"other root"), identity_of(), "seal", id="another device"),
        pytest.param(FakeHardware(platform_class="sgx"), identity_of(), "seal", id="another class of platform"),
        pytest.param(FakeHardware(runtimes=(b"unique runtime", b"x")), identity_of(), "seal", id="another runtime"),
        pytest.param(FakeHardware(), identity_of(debug=True), "seal", id="debug on"),
        pytest.param(FakeHardware(), identity_of(signer_id=b"t" * 32), "seal", id="another signer"),
        pytest.param(FakeHardware(), identity_of(product_id=2), "seal", id="another product"),
        pytest.param(FakeHardware(), identity_of(), "state", id="another purpose"),
    ],
)
def test_each_field_changes_the_product_key(hardware: FakeHardware, identity: Identity, purpose: Purpose) -> None:
    assert ProductKeys(hardware, identity, purpose).key(3) != ProductKeys(FakeHardware(), identity_of(), "seal").key(3)


def test_product_key_is_the_same_for_other_code_of_the_same_product() -> None:
    other_code = identity_of(unique_id=b"v" * 32)
    assert ProductKeys(FakeHardware(), other_code, "seal").key(3) == ProductKeys(
        FakeHardware(), identity_of(), "seal"
    ).key(3)


def test_unique_and_product_keys_differ() -> None:
    assert unique_key(FakeHardware(), identity_of(), "seal") != ProductKeys(FakeHardware(), identity_of(), "seal").key(
        3
    )


@pytest.mark.parametrize("sealer", VERSIONS)
@pytest.mark.parametrize("opener", VERSIONS)
def test_a_version_reaches_its_own_key_and_all_below_and_none_above(sealer: int, opener: int) -> None:
    sealing = ProductKeys(FakeHardware(), identity_of(security_version=sealer), "seal").key(sealer)
    opening = ProductKeys(FakeHardware(), identity_of(security_version=opener), "seal")
    if opener >= sealer:
        assert opening.key(sealer) == sealing
    else:
        with pytest.raises(EnclaveError) as refusal:
            opening.key(sealer)
        assert refusal.value.code == "security-version-too-low"


def test_keys_of_different_versions_differ() -> None:
    keys = ProductKeys(FakeHardware(), identity_of(security_version=0xFFFF), "seal")
    assert len({keys.key(version) for version in VERSIONS}) == len(VERSIONS)


def test_derived_keys_outlive_the_root() -> None:
    hardware = FakeHardware()
    keys = ProductKeys(hardware, identity_of(security_version=300), "seal")
    before = keys.key(2)
    hardware.close_derivation()
    assert keys.key(2) == before
    with pytest.raises(EnclaveError, match="derivation-closed"):
        unique_key(hardware, identity_of(), "seal")
