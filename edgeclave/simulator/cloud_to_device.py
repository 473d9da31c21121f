"""Cloud-to-device messages and their feedback (IoT Hub developer guide, messages-c2d).

A message waits in the input queue of its device until the device acknowledges it or it expires, which may be before
it is sent. A device that leaves with a message unacknowledged gets it again, up to the hub's greatest delivery count;
then it is dead-lettered. Its sender chooses with the property `iothub-ack` (none, positive, negative, full) which
outcomes it wants to read from the feedback queue. Limits are Azure's: 64 KB, 50 waiting messages a device, a time to
live of at most two days.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edgeclave.edge.store import StoreError
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.log import logger
from edgeclave.simulator.message import MAX_PROPERTIES, MAX_PROPERTY_BAG_CHARACTERS, encode_properties, too_long
from edgeclave.simulator.store import Outcome

MAX_BODY_BYTES = 64 * 1024
MAX_WAITING = 50
DEFAULT_LIFETIME_SECONDS, MAX_LIFETIME_SECONDS = 3600, 2 * 24 * 3600
MAX_MESSAGE_ID_CHARACTERS = 128
MAX_FEEDBACK = 64  # records in one batch
LOCK_SECONDS = 60
ACKS = ("none", "positive", "negative", "full")
MAX_DELIVERIES = 10  # of a new IoT Hub
SUCCESS, EXPIRED, PURGED, NOT_TAKEN = "Success", "Expired", "Purged", "DeliveryCountExceeded"
_log = logger("commands")


@dataclass(frozen=True)
class Command:
    """`system` has MQTT short names as keys: `$.mid`, `$.cid`, `$.uid`, `$.ct`, `$.ce`."""

    device_id: str
    body: bytes
    properties: Mapping[str, str]
    system: Mapping[str, str]
    expires: float | None = None


@dataclass(frozen=True)
class FeedbackBatch:
    """Records under a lock; they come back unless they are completed with its token."""

    token: str
    records: list[dict[str, Any]]


class CloudToDevice:
    """Writes join the store's current group; an outcome is on disk with the acknowledgement that causes it."""

    def __init__(self, hub: EdgeHub) -> None:
        self._hub = hub
        self._store = hub.store
        self._locks: dict[str, tuple[float, int]] = {}  # token -> until when, up to which record
        hub.inputs.on_taken.append(lambda number: self._settle(number, SUCCESS))
        hub.inputs.on_returned.append(self._returned)

    def send(self, command: Command, *, now: float | None = None) -> None:
        """Queues a message; it is accepted after the next commit.

        Raises:
            HubError: 404 no such device, 413 too large, 403 `DeviceMaximumQueueDepthExceeded`, 400 for its properties.
        """
        present = time.time() if now is None else now
        name = IdentityName(command.device_id)
        self._hub.identities.get(name)
        ack = str(command.properties.get("iothub-ack", "none")).lower()
        lifetime = DEFAULT_LIFETIME_SECONDS if command.expires is None else command.expires - present
        _check(command, ack)
        if self._hub.inputs.count(name) >= MAX_WAITING:
            raise HubError(
                403, "DeviceMaximumQueueDepthExceeded", f"{MAX_WAITING} messages wait for {command.device_id} already"
            )
        lifetime = max(0, min(lifetime, MAX_LIFETIME_SECONDS))
        system = {"$.to": f"/devices/{command.device_id}/messages/devicebound", **command.system}
        if command.expires is not None:
            until = datetime.fromtimestamp(present + lifetime, UTC)
            system["$.exp"] = until.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        bag = encode_properties(command.properties, system)
        if len(bag) > MAX_PROPERTY_BAG_CHARACTERS:
            raise too_long()
        topic = f"devices/{command.device_id}/messages/devicebound/{bag}"
        with self._store.write() as connection:
            number = self._hub.inputs.put(name, topic, command.body, priority=0, time_to_live_seconds=lifetime)
            connection.execute(
                "INSERT INTO commands (input_id, device_id, message_id, ack, expires_ms) VALUES (?, ?, ?, ?, ?)",
                (number, command.device_id, command.system["$.mid"], ack, int((present + lifetime) * 1000)),
            )
            if lifetime == 0:
                self.forget_expired()

    def after_commit(self, outcome: Outcome) -> None:
        """Calls `outcome` when what was sent so far is on disk, or cannot be."""
        self._store.after_commit(outcome)

    def purge(self, device_id: str) -> int:
        """Drops what waits for a device; returns how many that were. Raises HubError 404."""
        name = IdentityName(device_id)
        self._hub.identities.get(name)
        numbers = self._numbers("device_id = ?", device_id)
        with self._store.write() as connection:
            for number in numbers:
                connection.execute("DELETE FROM inputs WHERE id = ?", (number,))
                self._settle(number, PURGED)
        return len(numbers)

    def forget_expired(self) -> None:
        """Turns what is past its time into feedback. Call before the input queue forgets it."""
        with self._store.write() as connection:
            for number in self._numbers("expires_ms <= ?", int(time.time() * 1000)):
                connection.execute("DELETE FROM inputs WHERE id = ?", (number,))
                self._settle(number, EXPIRED)

    def feedback(self, *, now: float | None = None) -> FeedbackBatch | None:
        """The next records that nobody holds, locked for a minute; None when there are none."""
        present = time.time() if now is None else now
        self._locks = {token: lock for token, lock in self._locks.items() if lock[0] > present}
        if self._locks:
            return None  # one batch at a time keeps the order
        rows = self._store.connection.execute("SELECT * FROM feedback ORDER BY id LIMIT ?", (MAX_FEEDBACK,)).fetchall()
        if not rows:
            return None
        token = uuid.uuid4().hex
        self._locks[token] = (present + LOCK_SECONDS, rows[-1]["id"])
        records = [
            {
                "originalMessageId": row["message_id"],
                "description": row["status"],
                "statusCode": row["status"],
                "deviceId": row["device_id"],
                "deviceGenerationId": row["generation_id"],
                "enqueuedTimeUtc": row["enqueued"],
            }
            for row in rows
        ]
        return FeedbackBatch(token, records)

    def complete(self, token: str) -> None:
        """The batch was read and is dropped. Raises HubError 412 for a lock that is not or no longer held."""
        last = self._unlock(token)
        with self._store.write() as connection:
            connection.execute("DELETE FROM feedback WHERE id <= ?", (last,))

    def abandon(self, token: str) -> None:
        """The batch may be read again at once. Raises HubError 412."""
        self._unlock(token)

    def _unlock(self, token: str) -> int:
        until, last = self._locks.pop(token, (0.0, 0))
        if until <= time.time():
            raise HubError(412, "PreconditionFailed", "the lock on this feedback is not, or no longer, held")
        return last

    def _numbers(self, condition: str, value: str | int) -> list[int]:
        rows = self._store.connection.execute(f"SELECT input_id FROM commands WHERE {condition}", (value,))  # noqa: S608 - ours
        return [row["input_id"] for row in rows]

    def _returned(self, number: int) -> None:
        """A device left without acknowledging it. A count that cannot be stored is one delivery more for the device."""
        try:
            with self._store.write() as connection:
                connection.execute("UPDATE commands SET deliveries = deliveries + 1 WHERE input_id = ?", (number,))
                if number in self._numbers("input_id = ? AND deliveries >= " + str(MAX_DELIVERIES), number):
                    connection.execute("DELETE FROM inputs WHERE id = ?", (number,))
                    self._settle(number, NOT_TAKEN)
        except StoreError as error:
            _log.warning("cannot count a delivery", reason=str(error))

    def _settle(self, number: int, status: str) -> None:
        row = self._store.connection.execute("SELECT * FROM commands WHERE input_id = ?", (number,)).fetchone()
        if row is None:
            return  # a module's input
        wanted = ("positive", "full") if status == SUCCESS else ("negative", "full")
        identity = self._hub.identities.find(IdentityName(row["device_id"]))
        with self._store.write() as connection:
            connection.execute("DELETE FROM commands WHERE input_id = ?", (number,))
            if row["ack"] in wanted and identity is not None:
                now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                connection.execute(
                    "INSERT INTO feedback (device_id, generation_id, message_id, status, enqueued)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (row["device_id"], identity.generation_id, row["message_id"], status, now),
                )


def _check(command: Command, ack: str) -> None:
    if ack not in ACKS:
        raise bad_request(f"{ack[:40]!r} is none of {', '.join(ACKS)}", where="iothub-ack")
    if len(command.body) > MAX_BODY_BYTES:
        raise HubError(413, "MessageTooLarge", f"a message to a device has at most {MAX_BODY_BYTES} bytes")
    if len(command.properties) + len(command.system) > MAX_PROPERTIES:
        raise bad_request(f"a message has at most {MAX_PROPERTIES} properties")
    if not 0 < len(command.system.get("$.mid", "")) <= MAX_MESSAGE_ID_CHARACTERS:
        raise bad_request(f"a message id has 1 to {MAX_MESSAGE_ID_CHARACTERS} characters", where="message-id")
