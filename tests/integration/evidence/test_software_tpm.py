"""Quotes that a real TPM made, in software: what it signs is what the verifier reads."""

from hashlib import sha256

import msgspec
import pytest

from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.kinds import detect
from edgeclave.evidence.tpm import KIND, encode_quote
from tests.fixtures.software_tpm import software_tpm

EXTRA = sha256(b"an EAT").digest()
BOOT_LOADER = sha256(b"boot loader").digest()


@pytest.fixture(scope="module")
def tpm():
    with software_tpm() as started:
        started.extend(4, BOOT_LOADER)
        yield started


@pytest.fixture(
    scope="module",
    params=["ecc256:ecdsa-sha256", "ecc384:ecdsa-sha384", "rsa2048:rsassa-sha256", "rsa2048:rsapss-sha256"],
)
def attestation_key(tpm, request):
    return tpm.attestation_key(request.param)


@pytest.fixture(scope="module")
def quote(tpm, attestation_key):
    return tpm.quote(*attestation_key, EXTRA, [4, 7, 11])


def verify(quote, key):
    return KIND.verify(encode_quote(quote), Endorsements(), [Anchor("tpm", "boot-attested", key, "edge01")], 0)


def test_every_kind_of_key(quote, attestation_key):
    found = verify(quote, attestation_key[1])
    assert found.report_data == EXTRA + bytes(32)
    assert found.runtime["pcr4"] == sha256(bytes(32) + BOOT_LOADER).digest()
    assert found.runtime["pcr7"] == found.runtime["pcr11"] == bytes(32)
    assert found.details["TPM restarts"] >= 0
    assert detect(encode_quote(quote)) == ("tpm", encode_quote(quote))


@pytest.mark.parametrize("field", ["attest", "signature"])
def test_changed_on_the_way(quote, attestation_key, field):
    value = bytearray(getattr(quote, field))
    value[-1] ^= 1
    with pytest.raises(EvidenceError, match="bad-quote-signature"):
        verify(msgspec.structs.replace(quote, **{field: bytes(value)}), attestation_key[1])


def test_pcrs_of_before(quote, attestation_key):
    changed = msgspec.structs.replace(quote, pcrs={**quote.pcrs, 4: bytes(32)})
    with pytest.raises(EvidenceError, match="wrong-pcr-digest"):
        verify(changed, attestation_key[1])


def test_another_key_of_the_same_tpm(tpm, quote):
    _, other = tpm.attestation_key("ecc256:ecdsa-sha256")
    with pytest.raises(EvidenceError, match="untrusted-anchor"):
        verify(quote, other)
