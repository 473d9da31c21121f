"""A result or record belongs to the evidence it names, or it is not used."""

import dataclasses

import msgspec
import pytest

from edgeclave import cose
from edgeclave.errors import ResultError
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.eat import Epoch
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.verifier import AttestationResult
from edgeclave.results.matching import match_close, match_open, match_result
from edgeclave.results.records import CloseRecord, OpenRecord, VerifiedClose, VerifiedOpen
from edgeclave.results.sealed import verify_result
from edgeclave.ta.identity import Identity

POLICY = Policy(anchors=(), runtime={}, classes=frozenset(), trusted_apps=())
IDENTITY = Identity(b"u" * 32, b"s" * 32, 7, 3, False)


@pytest.fixture(scope="module")
def attested(instance):
    key = cose.generate_key().public_key()
    return AttestationResult(
        anchor=Anchor("emulator", "emulated", key),
        platform_instance=cose.thumbprint(key),
        device="edge01",
        identity=IDENTITY,
        signing_key=instance.public_key,
        channel_key=key,
        epoch=Epoch(2, "none", b"p" * 32),
        storage_level="consistent",
        recipients={},
        freshness="unknown",
        evidence_digest=b"e" * 32,
        host_time=None,
    )


def refusal(function, *arguments):
    with pytest.raises(ResultError) as refused:
        function(*arguments)
    return refused.value.code


MISMATCHES = [
    pytest.param({"signing_key": cose.generate_key().public_key()}, "wrong-instance", id="another instance"),
    pytest.param({"evidence_digest": b"f" * 32}, "wrong-evidence", id="other evidence"),
    pytest.param({"identity": dataclasses.replace(IDENTITY, unique_id=b"v" * 32)}, "wrong-identity", id="other code"),
    pytest.param({"identity": dataclasses.replace(IDENTITY, security_version=4)}, "wrong-identity", id="other version"),
    pytest.param({"epoch": Epoch(3, "none", b"p" * 32)}, "wrong-epoch", id="another epoch"),
]


class TestResult:
    def test_it_matches(self, instance, attested):
        match_result(verify_result(instance.seal(), instance.public_key), attested, POLICY)

    @pytest.mark.parametrize(("change", "code"), MISMATCHES)
    def test_it_does_not_match(self, instance, attested, change, code):
        verified = verify_result(instance.seal(), instance.public_key)
        assert refusal(match_result, verified, dataclasses.replace(attested, **change), POLICY) == code

    @pytest.mark.parametrize(("minimum", "accepted"), [(1, True), (2, False)], ids=["the least", "too old"])
    def test_readers_refuse_recipient_sets_below_their_minimum(self, instance, attested, minimum, accepted):
        verified = verify_result(instance.seal(), instance.public_key)
        policy = dataclasses.replace(POLICY, minimum_recipients={"anomalies": minimum})
        if accepted:
            match_result(verified, attested, policy)
        else:
            assert refusal(match_result, verified, attested, policy) == "recipients-too-old"


class TestRecords:
    def opened(self, attested, **changes):
        record = OpenRecord(2, "anomaly", b"e" * 32, IDENTITY, b"p" * 32, {})
        return VerifiedOpen(dataclasses.replace(record, **changes), attested.instance_id, b"d" * 32)

    def test_an_open_record_matches(self, attested):
        match_open(self.opened(attested), attested)

    @pytest.mark.parametrize(("change", "code"), MISMATCHES)
    def test_an_open_record_does_not_match(self, attested, change, code):
        assert refusal(match_open, self.opened(attested), dataclasses.replace(attested, **change)) == code

    def test_an_open_record_with_another_predecessor_than_the_evidence(self, attested):
        assert refusal(match_open, self.opened(attested, predecessor=b"q" * 32), attested) == "wrong-epoch"

    def test_a_close_record(self, attested):
        closed = VerifiedClose(CloseRecord(2, "anomaly", {}), attested.instance_id, b"d" * 32)
        match_close(closed, attested)
        later = dataclasses.replace(closed, record=msgspec.structs.replace(closed.record, epoch=3))
        assert refusal(match_close, later, attested) == "wrong-epoch"
        stranger = dataclasses.replace(closed, instance_id=b"i" * 32)
        assert refusal(match_close, stranger, attested) == "wrong-instance"
