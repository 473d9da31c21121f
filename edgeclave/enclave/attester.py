"""What an instance says about itself, vouched for by the platform (PROTOCOL section 6)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave.cose import generate_key, thumbprint
from edgeclave.enclave.hardware import Hardware
from edgeclave.enclave.storage import storage_level
from edgeclave.enclave.streams import Streams
from edgeclave.evidence.collection import Collection, encode_collection
from edgeclave.evidence.eat import Claims, Epoch, make_eat, report_data
from edgeclave.results.beacon import Beacon
from edgeclave.ta.identity import Identity


@dataclass(frozen=True)
class InstanceKeys:
    """Made after each start, and never stored."""

    signing: ec.EllipticCurvePrivateKey
    channel: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> InstanceKeys:
        return cls(generate_key(), generate_key())

    @property
    def instance_id(self) -> bytes:
        return thumbprint(self.signing.public_key())


class Attester:
    """Makes evidence of one instance."""

    def __init__(
        self, hardware: Hardware, identity: Identity, keys: InstanceKeys, epoch: Epoch, streams: Streams
    ) -> None:
        self.beacon: Beacon | None = None
        self._hardware = hardware
        self._identity = identity
        self._keys = keys
        self._epoch = epoch
        self._streams = streams

    def evidence(self, nonce: bytes | None, host_time: int) -> bytes:
        """An evidence collection for `nonce`; without one it carries the last beacon, if there was one."""
        if nonce is None and self.beacon is not None:
            nonce = self.beacon.value
        claims = Claims(
            nonce=nonce,
            signing_key=self._keys.signing.public_key(),
            channel_key=self._keys.channel.public_key(),
            identity=self._identity,
            epoch=self._epoch,
            storage_level=storage_level(self._hardware),
            recipients=self._streams.recipients_in_force,
            host_time=host_time,
        )
        eat = make_eat(claims, self._keys.signing)
        return encode_collection(Collection(eat, self._hardware.quote(report_data(eat))))
