"""How one instance follows another on the same slot (PROTOCOL section 8).

The sealed state names the last instance: its public key, its number and its open record. The host shows that
instance's last results; only results that verify with its key are believed, and they are named in the new open record.
An output on which that instance gave no result is absent, whatever instances before it gave: the reader has those from
earlier open records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from edgeclave.cose import sha256, spki, thumbprint
from edgeclave.enclave.state import EpochRecord
from edgeclave.errors import EnclaveError, ResultError
from edgeclave.results.sealed import peek_result, verify_result


@dataclass(frozen=True)
class Predecessor:
    """The instance before this one on the slot."""

    number: int
    instance_id: bytes
    heads: dict[str, tuple[int, bytes]]


def epoch_record(number: int, signing_key: ec.EllipticCurvePublicKey, open_record: bytes) -> EpochRecord:
    """What the state keeps of an instance for the one after it."""
    return EpochRecord(number, spki(signing_key), sha256(open_record))


def read_predecessor(
    record: EpochRecord | None, shown: Mapping[str, bytes], shown_open: bytes | None
) -> Predecessor | None:
    """Checks what the host shows of the instance in `record`; None when there was none.

    Results of instances before that one are passed over: it is the same as not showing them.

    Raises:
        EnclaveError: `shown-result-refused`.
    """
    if record is None:
        if shown or shown_open is not None:
            _refuse("there is no instance before this one, yet its last messages are shown", "")
        return None
    key = load_der_public_key(record.signing_key)
    assert isinstance(key, ec.EllipticCurvePublicKey)  # it came out of our own sealed state
    if shown_open is not None and sha256(shown_open) != record.open_record:
        _refuse("it is not the open record of the instance before this one", "open record")
    instance_id = thumbprint(key)
    heads = {}
    for output, message in shown.items():
        try:
            if peek_result(message).instance_id != instance_id:
                continue
            verified = verify_result(message, key)
        except ResultError as error:
            _refuse(error.what, f"output {output[:64]}")
        if verified.header.output != output or verified.header.epoch != record.number:
            _refuse("it is of another output or epoch than it is shown for", f"output {output[:64]}")
        heads[output] = (verified.header.sequence, verified.digest)
    return Predecessor(record.number, instance_id, heads)


def _refuse(what: str, where: str) -> NoReturn:
    raise EnclaveError(
        "shown-result-refused",
        f"the last result that was shown does not verify: {what}",
        where=where,
        advice="the runner's store was altered or mixed up; restore it, or remove the slot to start a new history",
    )
