from __future__ import annotations

import pytest

from edgeclave.cose import generate_key, sha256, thumbprint
from edgeclave.enclave.epoch import epoch_record, read_predecessor
from edgeclave.errors import EnclaveError
from edgeclave.results.recipients import sign_recipient_set, verify_recipient_set
from edgeclave.results.sealed import NO_INPUTS, ResultHeader, seal

LAST, OLDER = generate_key(), generate_key()
OPEN = b"open record of the last instance"
RECORD = epoch_record(7, LAST.public_key(), OPEN)


def sealed(output: str = "out", epoch: int = 7, sequence: int = 3, key: object = LAST) -> bytes:
    authority = generate_key()
    recipients = verify_recipient_set(
        sign_recipient_set(output, 1, [generate_key().public_key()], authority), authority.public_key()
    )
    header = ResultHeader(
        unique_id=bytes(32),
        signer_id=bytes(32),
        product_id=1,
        security_version=1,
        output=output,
        epoch=epoch,
        sequence=sequence,
        previous=bytes(32),
        evidence_digest=bytes(32),
        recipients=(recipients.version, recipients.digest),
        beacon=None,
        calls=1,
        inputs=NO_INPUTS,
        assurance="none",
        host_time=0,
    )
    return seal(header, b"{}", LAST if key is LAST else OLDER, recipients)


def test_the_first_instance_has_no_predecessor() -> None:
    assert read_predecessor(None, {}, None) is None


def test_results_that_verify_become_heads() -> None:
    result = sealed()
    predecessor = read_predecessor(RECORD, {"out": result}, OPEN)
    assert predecessor is not None
    assert (predecessor.number, predecessor.instance_id) == (7, thumbprint(LAST.public_key()))
    assert predecessor.heads == {"out": (3, sha256(result))}


def test_results_of_earlier_instances_are_passed_over() -> None:
    predecessor = read_predecessor(RECORD, {"out": sealed(key=OLDER, epoch=6)}, OPEN)
    assert predecessor is not None
    assert predecessor.heads == {}


def flipped(message: bytes) -> bytes:
    return message[:-1] + bytes([message[-1] ^ 1])


@pytest.mark.parametrize(
    ("shown", "shown_open"),
    [
        pytest.param({"out": flipped(sealed())}, OPEN, id="a flipped bit"),
        pytest.param({"out": b"nothing of the sort"}, OPEN, id="no sealed result"),
        pytest.param({"other": sealed("out")}, OPEN, id="shown for another output"),
        pytest.param({"out": sealed(epoch=6)}, OPEN, id="of another epoch"),
        pytest.param({"out": sealed()}, b"another open record", id="another open record"),
    ],
)
def test_what_does_not_verify_is_refused(shown: dict[str, bytes], shown_open: bytes) -> None:
    with pytest.raises(EnclaveError) as refusal:
        read_predecessor(RECORD, shown, shown_open)
    assert refusal.value.code == "shown-result-refused"


@pytest.mark.parametrize(
    ("shown", "shown_open"),
    [pytest.param({"out": b"x"}, None, id="a result"), pytest.param({}, OPEN, id="an open record")],
)
def test_without_state_nothing_can_be_shown(shown: dict[str, bytes], shown_open: bytes | None) -> None:
    with pytest.raises(EnclaveError, match="shown-result-refused"):
        read_predecessor(None, shown, shown_open)
