"""The streams of sealed results of one instance: one per output (PROTOCOL sections 7 and 8).

On each output the sequence numbers of an instance count from 1 without holes, and each result names the digest of the
one before it; the first names the open record. Only recipient sets signed by the authority in the manifest are obeyed,
and never one with a lower version than the highest seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import get_args

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from edgeclave.cose import sha256
from edgeclave.enclave.messages import Assurance, SealedResult
from edgeclave.enclave.transaction import ServiceError
from edgeclave.errors import EnclaveError
from edgeclave.results.recipients import RecipientSet, verify_recipient_set
from edgeclave.results.sealed import ResultHeader, seal
from edgeclave.ta.manifest import Output

_ASSURANCE_ORDER: tuple[Assurance, ...] = get_args(Assurance)  # from the lowest


@dataclass(frozen=True)
class Head:
    """Where the stream of one output stands; `assurance` is the lowest since the last result, None without a call."""

    sequence: int
    digest: bytes
    assurance: Assurance | None = None


HeaderMaker = Callable[[str, Head, tuple[int, bytes], Assurance], ResultHeader]
"""Makes R of the next result from output, head before it, version and digest of the recipients, and assurance."""


class Streams:
    """All outputs of one instance."""

    def __init__(self, outputs: Mapping[str, Output], seen: Mapping[str, tuple[int, bytes]]) -> None:
        """`seen`: per output the highest recipient set ever obeyed, from trusted storage."""
        self._authorities = {name: _authority(output) for name, output in outputs.items()}
        self._seen = dict(seen)
        self._recipients: dict[str, RecipientSet] = {}
        self._heads: dict[str, Head] = {}

    def open(self, open_record_digest: bytes) -> None:
        """Starts every stream at the open record."""
        self._heads = {output: Head(0, open_record_digest) for output in self._authorities}

    def set_recipients(self, output: str, message: bytes) -> RecipientSet:
        """Obeys a recipient set from now on.

        Raises:
            EnclaveError: `unknown-output`, `recipient-set-too-old`.
            ResultError: see `verify_recipient_set`.
        """
        authority = self._authorities.get(output)
        if authority is None:
            raise EnclaveError(
                "unknown-output", f"the manifest declares no output {output[:64]}", advice="name a declared output"
            )
        recipients = verify_recipient_set(message, authority)
        if recipients.output != output:
            raise EnclaveError(
                "unknown-output",
                f"this recipient set is for output {recipients.output}",
                where=f"recipients of {output}",
            )
        version = self._seen[output][0] if output in self._seen else 0
        if recipients.version < version:
            raise EnclaveError(
                "recipient-set-too-old",
                f"version {recipients.version} was already replaced by version {version}",
                where=f"recipients of {output}",
                advice="deploy the newest set, or sign a new one with a higher version",
            )
        self._recipients[output] = recipients
        self._seen[output] = (recipients.version, recipients.digest)
        return recipients

    @property
    def seen_recipients(self) -> dict[str, tuple[int, bytes]]:
        """Per output version and digest of the highest set obeyed: for trusted storage."""
        return dict(self._seen)

    @property
    def recipients_in_force(self) -> dict[str, tuple[int, bytes]]:
        """Per output version and digest of the set that results are sealed to now: for evidence."""
        return {output: (recipients.version, recipients.digest) for output, recipients in self._recipients.items()}

    @property
    def last_results(self) -> dict[str, tuple[int, bytes]]:
        """Per output that has a result, its sequence number and digest."""
        return {output: (head.sequence, head.digest) for output, head in self._heads.items() if head.sequence}

    def next_sequence(self, output: str) -> int:
        """Raises ServiceError when nothing can be sealed on this output."""
        if output not in self._authorities:
            raise ServiceError(f"unknown output {output[:64]}: the manifest does not declare it")
        if output not in self._recipients:
            raise ServiceError(f"output {output} has no recipients yet")
        return self._heads[output].sequence + 1

    def note_call(self, assurance: Assurance) -> None:
        """Each call lowers, never raises, what the next result on each output may claim."""
        for output, head in self._heads.items():
            lowest = _lower(head.assurance, assurance)
            if lowest != head.assurance:
                self._heads[output] = replace(head, assurance=lowest)

    def seal(
        self,
        emitted: Iterable[tuple[str, bytes]],
        header: HeaderMaker,
        key: ec.EllipticCurvePrivateKey,
        call: Assurance | None,
    ) -> tuple[tuple[SealedResult, ...], dict[str, Head]]:
        """Seals results in order; returns them with the heads to `advance` to once the call commits.

        `call`: the assurance of the call that emits them; None for heartbeats, which no call makes.
        """
        heads = dict(self._heads)
        results = []
        for output, payload in emitted:
            head, recipients = heads[output], self._recipients[output]
            lowest = head.assurance or _ASSURANCE_ORDER[0]
            sealed = seal(
                header(output, head, (recipients.version, recipients.digest), lowest), payload, key, recipients
            )
            heads[output] = Head(head.sequence + 1, sha256(sealed), call)
            results.append(SealedResult(output, head.sequence + 1, sealed))
        emitted_on = {result.output for result in results}
        return tuple(results), {output: replace(heads[output], assurance=None) for output in emitted_on}

    def advance(self, heads: Mapping[str, Head]) -> None:
        self._heads.update(heads)


def _lower(first: Assurance | None, second: Assurance) -> Assurance:
    return second if first is None else min(first, second, key=_ASSURANCE_ORDER.index)


def _authority(output: Output) -> ec.EllipticCurvePublicKey:
    key = load_der_public_key(output.recipient_authority)
    assert isinstance(key, ec.EllipticCurvePublicKey)  # the manifest was checked
    return key
