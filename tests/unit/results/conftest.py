"""A device that may lie about its past, and a reader that keeps what is held."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave.cose import generate_key
from edgeclave.results.recipients import RecipientSet, sign_recipient_set, verify_recipient_set
from edgeclave.results.sealed import NO_INPUTS, ResultHeader, seal
from edgeclave.results.stream import StreamHeads, Wanted
from edgeclave.results.stream_state import CloseLink, OpenLink, ResultLink
from edgeclave.results.verdicts import Kind, Verdict

Message = OpenLink | CloseLink | ResultLink


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


@dataclass
class Snapshot:
    """What a restart goes on from: the instance that ran, and its last results."""

    instance_id: bytes
    epoch: int
    heads: dict[str, tuple[int, bytes]]


@dataclass
class Device:
    """One slot of one product. `sent` is everything the TEE ever released, in order."""

    slot: str = "anomaly"
    counted: bool = False
    sent: list[Message] = field(default_factory=list)
    names: Iterable[int] = field(default_factory=itertools.count)
    current: Snapshot | None = None
    opened: bytes = b""
    counter: int = 0

    def start(self, state: Snapshot | None = None, *, skipped_epochs: int = 0) -> OpenLink:
        """A new instance from a state; None begins anew."""
        name = next(iter(self.names))
        me = digest(self.slot, "instance", name)
        self.counter += 1 + skipped_epochs
        heads = dict(state.heads) if state else {}
        epoch = self.counter if self.counted else (state.epoch + 1 if state else 1)
        link = OpenLink(
            me, self.slot, epoch, self.counted, state.instance_id if state else None, heads, digest("open", me)
        )
        self.opened = link.digest
        self.current = Snapshot(me, epoch, {})
        self.sent.append(link)
        return link

    def emit(self, output: str = "anomalies", *, salt: object = "") -> ResultLink:
        assert self.current is not None
        sequence, previous = self.current.heads.get(output, (0, self.opened))
        name = next(iter(self.names))
        link = ResultLink(
            self.current.instance_id, output, sequence + 1, previous, digest(output, sequence, previous, name, salt)
        )
        self.current.heads[output] = (link.sequence, link.digest)
        self.sent.append(link)
        return link

    def snapshot(self) -> Snapshot:
        assert self.current is not None
        return Snapshot(self.current.instance_id, self.current.epoch, dict(self.current.heads))

    def restart(self) -> OpenLink:
        return self.start(self.snapshot())

    def close(self) -> CloseLink:
        state = self.snapshot()
        link = CloseLink(state.instance_id, self.slot, state.epoch, state.heads, digest("close", state.instance_id))
        self.sent.append(link)
        return link


@dataclass
class Reader:
    """Keeps held results and offers them again, as `edgeclave consume` does; stores its heads after every message."""

    heads: StreamHeads = field(default_factory=StreamHeads)
    held: dict[tuple[bytes, str, int], list[ResultLink]] = field(default_factory=dict)
    results: dict[bytes, ResultLink] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    accepted: list[ResultLink] = field(default_factory=list)

    def take(self, *messages: Message) -> list[str]:
        """Codes of everything these messages led to."""
        before = len(self.verdicts)
        for message in messages:
            self._note(self._offer(message))
            self._note(list(self.heads.drain(self._find)))
            self.heads = StreamHeads.restore(self.heads.export())
        return [verdict.code for verdict in self.verdicts[before:]]

    def decide(self, verdicts: list[Verdict]) -> list[str]:
        """Takes the verdicts of a person's decision and what they set free."""
        before = len(self.verdicts)
        self._note(verdicts)
        self._note(list(self.heads.drain(self._find)))
        return [verdict.code for verdict in self.verdicts[before:]]

    def kinds(self) -> set[Kind]:
        return {verdict.kind for verdict in self.verdicts}

    def _offer(self, message: Message) -> list[Verdict]:
        if isinstance(message, OpenLink):
            return self.heads.open(message)
        if isinstance(message, CloseLink):
            return self.heads.close(message)
        self.results[message.digest] = message
        return self.heads.result(message)

    def _find(self, wanted: Wanted) -> list[ResultLink]:
        return self.held.pop((wanted.instance_id, wanted.output, wanted.sequence), [])

    def _note(self, verdicts: list[Verdict]) -> None:
        self.verdicts += verdicts
        for verdict in verdicts:
            link = self.results.get(verdict.digest)
            if link is None:
                continue
            if verdict.keep:
                kept = self.held.setdefault((link.instance_id, link.output, link.sequence), [])
                if link not in kept:
                    kept.append(link)
            elif verdict.kind is Kind.ACCEPTED:
                self.accepted.append(link)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def counting_device() -> Device:
    return Device(counted=True)


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="session")
def make_device() -> type[Device]:
    return Device


@pytest.fixture(scope="session")
def make_reader() -> type[Reader]:
    return Reader


@dataclass
class Instance:
    """A running instance with one reader, and everything to seal for it."""

    signing_key: ec.EllipticCurvePrivateKey = field(default_factory=generate_key)
    reader_key: ec.EllipticCurvePrivateKey = field(default_factory=generate_key)
    authority_key: ec.EllipticCurvePrivateKey = field(default_factory=generate_key)

    def recipients(self, *more: ec.EllipticCurvePrivateKey, output: str = "anomalies") -> RecipientSet:
        keys = [key.public_key() for key in (self.reader_key, *more)]
        return verify_recipient_set(
            sign_recipient_set(output, 1, keys, self.authority_key), self.authority_key.public_key()
        )

    def header(self, sealed_to: RecipientSet, **changes: object) -> ResultHeader:
        fields = {
            "unique_id": b"u" * 32,
            "signer_id": b"s" * 32,
            "product_id": 7,
            "security_version": 3,
            "output": sealed_to.output,
            "epoch": 2,
            "sequence": 1,
            "previous": b"o" * 32,
            "evidence_digest": b"e" * 32,
            "recipients": (sealed_to.version, sealed_to.digest),
            "beacon": (4, b"beacon-of-16-byt"),
            "calls": 5,
            "inputs": NO_INPUTS,
            "assurance": "none",
            "host_time": 1_700_000_000_123,
        }
        return ResultHeader(**{**fields, **changes})

    def seal(self, payload: bytes = b"payload", *more: ec.EllipticCurvePrivateKey, **changes: object) -> bytes:
        recipients = self.recipients(*more)
        return seal(self.header(recipients, **changes), payload, self.signing_key, recipients)

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self.signing_key.public_key()


@pytest.fixture(scope="session")
def instance() -> Instance:
    return Instance()


@pytest.fixture(scope="session")
def other_instance() -> Instance:
    return Instance()
