"""A device in miniature: an emulator key and instances that seal, made with the product's own functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave import cose
from edgeclave.cloud.events import Event
from edgeclave.cloud.heads import HeadStore
from edgeclave.cloud.reader import Reader
from edgeclave.evidence import collection
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.eat import Claims, Epoch, make_eat, report_data
from edgeclave.evidence.emulator import make_quote, quote_item
from edgeclave.evidence.policy import Policy, TrustedApp
from edgeclave.evidence.reference import Reference
from edgeclave.results.recipients import RecipientSet, sign_recipient_set, verify_recipient_set
from edgeclave.results.records import CLOSE, OPEN, CloseRecord, OpenRecord, sign_close, sign_open
from edgeclave.results.sealed import NO_INPUTS, RESULT, ResultHeader, seal
from edgeclave.ta.identity import Identity

DEVICE, SLOT, OUTPUT = "edge01", "anomaly", "anomalies"
RUNTIME = bytes([9]) * 32
SIGNER = bytes([1]) * 32


@dataclass
class World:
    """Keys of everybody, and the hub: `send` makes the event that the reader would get."""

    attestation_key: ec.EllipticCurvePrivateKey = field(default_factory=cose.generate_key)
    authority_key: ec.EllipticCurvePrivateKey = field(default_factory=cose.generate_key)
    recipient_key: ec.EllipticCurvePrivateKey = field(default_factory=cose.generate_key)
    runtime: bytes = RUNTIME
    hub_sequence: int = -1

    def recipients(self, output: str = OUTPUT, version: int = 1) -> RecipientSet:
        message = sign_recipient_set(output, version, [self.recipient_key.public_key()], self.authority_key)
        return verify_recipient_set(message, self.authority_key.public_key())

    def policy(self, **changed: Any) -> Policy:
        values: dict[str, Any] = {
            "anchors": (Anchor("emulator", "emulated", self.attestation_key.public_key(), DEVICE),),
            "runtime": {"emulator": Reference({"digest": RUNTIME})},
            "classes": frozenset({"emulated"}),
            "trusted_apps": (TrustedApp(signer_id=SIGNER, product_id=1, minimum_security_version=1),),
            "freshness": "unknown",
        }
        return Policy(**{**values, **changed})

    def send(self, content_type: str, body: bytes, device: str = DEVICE) -> Event:
        self.hub_sequence += 1
        return Event("0", self.hub_sequence, body, content_type, {"edgeclave-slot": SLOT}, device, "ta_runner")


@dataclass
class Instance:
    """One run of a trusted application; its messages as the device would send them."""

    world: World
    predecessor: Instance | None = None
    security_version: int = 1
    product_id: int = 1
    slot: str = SLOT
    nonce: bytes | None = None
    debug: bool = False
    takes_over: dict[str, tuple[int, bytes]] | None = None
    sets: dict[str, RecipientSet] = field(default_factory=dict)
    heads: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    key: ec.EllipticCurvePrivateKey = field(default_factory=cose.generate_key)
    epoch: int = 1

    def __post_init__(self) -> None:
        if self.predecessor:
            self.epoch = self.predecessor.epoch + 1
        self.identity = Identity(
            cose.sha256(b"code %d" % self.security_version), SIGNER, self.product_id, self.security_version, self.debug
        )
        self.sets.setdefault(OUTPUT, self.world.recipients())
        self.evidence_body = self.make_evidence(self.nonce)
        inherited = self.predecessor.heads if self.predecessor else {}
        self.open_body = sign_open(
            OpenRecord(
                self.epoch,
                self.slot,
                cose.sha256(self.evidence_body),
                self.identity,
                self.predecessor.instance_id if self.predecessor else None,
                inherited if self.takes_over is None else self.takes_over,
            ),
            self.key,
        )

    @property
    def instance_id(self) -> bytes:
        return cose.thumbprint(self.key.public_key())

    def make_evidence(self, nonce: bytes | None, host_time: int | None = None) -> bytes:
        claims = Claims(
            nonce,
            self.key.public_key(),
            cose.generate_key().public_key(),
            self.identity,
            Epoch(self.epoch, "none", self.predecessor.instance_id if self.predecessor else None),
            "consistent",
            {output: (keys.version, keys.digest) for output, keys in self.sets.items()},
            host_time,
        )
        eat = make_eat(claims, self.key)
        quote = make_quote(self.world.attestation_key, report_data(eat), self.world.runtime, debug=False)
        return collection.encode_collection(collection.Collection(eat, quote_item(quote)))

    def evidence(self, device: str = DEVICE) -> Event:
        return self.world.send(collection.MEDIA_TYPE, self.evidence_body, device)

    def open(self) -> Event:
        return self.world.send(OPEN.media_type, self.open_body)

    def close(self) -> Event:
        return self.world.send(CLOSE.media_type, sign_close(CloseRecord(self.epoch, self.slot, self.heads), self.key))

    def seal(self, payload: Any, output: str = OUTPUT, **changed: Any) -> bytes:
        """Seals and moves the head of the output."""
        sequence, previous = self.heads.get(output, (0, cose.sha256(self.open_body)))
        keys = self.sets.setdefault(output, self.world.recipients(output))
        values: dict[str, Any] = {
            "unique_id": self.identity.unique_id,
            "signer_id": self.identity.signer_id,
            "product_id": self.identity.product_id,
            "security_version": self.identity.security_version,
            "output": output,
            "epoch": self.epoch,
            "sequence": sequence + 1,
            "previous": previous,
            "evidence_digest": cose.sha256(self.evidence_body),
            "recipients": (keys.version, keys.digest),
            "beacon": None,
            "calls": sequence + 1,
            "inputs": NO_INPUTS,
            "assurance": "none",
            "host_time": 1_700_000_000_000,
        }
        plaintext = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        sealed = seal(ResultHeader(**{**values, **changed}), plaintext, self.key, keys)
        self.heads[output] = (sequence + 1, cose.sha256(sealed))
        return sealed

    def result(self, payload: Any, output: str = OUTPUT, **changed: Any) -> Event:
        return self.world.send(RESULT.media_type, self.seal(payload, output, **changed))

    def begin(self) -> list[Event]:
        return [self.evidence(), self.open()]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HeadStore]:
    opened = HeadStore(tmp_path / "reader")
    yield opened
    opened.close()


@pytest.fixture
def reader(world: World, store: HeadStore) -> Reader:
    return Reader(world.policy(), world.recipient_key, store)
