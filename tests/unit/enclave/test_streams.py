from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave.cose import generate_key, sha256, spki
from edgeclave.enclave.messages import Assurance
from edgeclave.enclave.streams import Head, Streams
from edgeclave.enclave.transaction import ServiceError
from edgeclave.errors import EdgeclaveError
from edgeclave.results.recipients import sign_recipient_set
from edgeclave.results.sealed import NO_INPUTS, ResultHeader, verify_result
from edgeclave.ta.manifest import Output

AUTHORITY, READER, SIGNING = generate_key(), generate_key(), generate_key()
OUTPUTS = {"out": Output(spki(AUTHORITY.public_key())), "other": Output(spki(AUTHORITY.public_key()))}
OPEN = b"o" * 32


def recipients(version: int, output: str = "out", authority: ec.EllipticCurvePrivateKey = AUTHORITY) -> bytes:
    return sign_recipient_set(output, version, [READER.public_key()], authority)


def header(output: str, head: Head, versioned: tuple[int, bytes], lowest: Assurance) -> ResultHeader:
    return ResultHeader(
        unique_id=bytes(32),
        signer_id=bytes(32),
        product_id=1,
        security_version=1,
        output=output,
        epoch=1,
        sequence=head.sequence + 1,
        previous=head.digest,
        evidence_digest=bytes(32),
        recipients=versioned,
        beacon=None,
        calls=1,
        inputs=NO_INPUTS,
        assurance=lowest,
        host_time=0,
    )


@pytest.fixture
def streams() -> Streams:
    made = Streams(OUTPUTS, {})
    made.open(OPEN)
    made.set_recipients("out", recipients(1))
    return made


def commit(streams: Streams, count: int, call: Assurance) -> list[ResultHeader]:
    """One call of this assurance that emits `count` results on `out`; their headers."""
    streams.note_call(call)
    results, heads = streams.seal([("out", b"{}")] * count, header, SIGNING, call)
    streams.advance(heads)
    return [verify_result(result.sealed, SIGNING.public_key()).header for result in results]


def test_sequence_and_chain_go_on_from_the_open_record(streams: Streams) -> None:
    streams.note_call("none")
    first, heads = streams.seal([("out", b"1"), ("out", b"2")], header, SIGNING, "none")
    assert streams.next_sequence("out") == 1, "sealing alone advances nothing"
    streams.advance(heads)
    second, _ = streams.seal([("out", b"3")], header, SIGNING, "none")
    chained = [verify_result(result.sealed, SIGNING.public_key()) for result in (*first, *second)]
    assert [result.header.sequence for result in chained] == [1, 2, 3]
    assert [result.header.previous for result in chained] == [OPEN, chained[0].digest, chained[1].digest]
    assert streams.last_results == {"out": (2, sha256(first[1].sealed))}


def test_assurance_is_the_lowest_since_the_previous_result(streams: Streams) -> None:
    assert [result.assurance for result in commit(streams, 1, "authenticated")] == ["authenticated"]
    streams.note_call("none")
    assert [result.assurance for result in commit(streams, 2, "authenticated")] == ["none", "authenticated"]
    streams.note_call("confidential")
    assert [result.assurance for result in commit(streams, 1, "authenticated")] == ["confidential"]


def test_a_result_that_no_call_made_claims_nothing(streams: Streams) -> None:
    (result,), _ = streams.seal([("out", b"")], header, SIGNING, None)
    assert verify_result(result.sealed, SIGNING.public_key()).header.assurance == "none"


@pytest.mark.parametrize(
    ("output", "says"),
    [
        pytest.param("elsewhere", "unknown output elsewhere", id="an undeclared output"),
        pytest.param("other", "output other has no recipients yet", id="an output without recipients"),
    ],
)
def test_nothing_is_sealed_to_nobody(streams: Streams, output: str, says: str) -> None:
    with pytest.raises(ServiceError, match=says):
        streams.next_sequence(output)


@pytest.mark.parametrize(
    ("output", "message", "code"),
    [
        pytest.param("nowhere", recipients(9), "unknown-output", id="an output that is not declared"),
        pytest.param("other", recipients(9), "unknown-output", id="a set for another output"),
        pytest.param("out", recipients(4), "recipient-set-too-old", id="an older set"),
        pytest.param(
            "out", recipients(9, authority=generate_key()), "wrong-recipient-authority", id="another authority"
        ),
        pytest.param("out", b"", "wrong-recipient-authority", id="no message at all"),
    ],
)
def test_recipient_sets_that_are_refused(output: str, message: bytes, code: str) -> None:
    streams = Streams(OUTPUTS, {})
    first = recipients(5)
    streams.set_recipients("out", first)
    with pytest.raises(EdgeclaveError) as refusal:
        streams.set_recipients(output, message)
    assert refusal.value.code == code
    assert streams.recipients_in_force == {"out": (5, sha256(first))}, "the set in force stays"


def test_a_set_signed_again_under_the_same_version_is_obeyed() -> None:
    streams = Streams(OUTPUTS, {})
    streams.set_recipients("out", recipients(5))
    again = recipients(5)
    assert streams.set_recipients("out", again).digest == sha256(again)


def test_the_highest_set_is_remembered_across_instances() -> None:
    before = Streams(OUTPUTS, {})
    newest = recipients(5)
    before.set_recipients("out", newest)
    after = Streams(OUTPUTS, before.seen_recipients)
    with pytest.raises(EdgeclaveError, match="recipient-set-too-old"):
        after.set_recipients("out", recipients(4))
    assert after.set_recipients("out", newest).version == 5
