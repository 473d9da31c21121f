"""A client's persistent session: its subscriptions, and its inputs on their way (QoS 1).

Both are on disk, so they outlive the connection and the simulator. Inputs that were sent but not acknowledged are sent
again, in order, with the duplicate flag, on the next connection. What was sent before a restart is not known any more:
all that waited then, for a client that had subscribed, may be a duplicate and says so (MQTT-3.3.1-1).
"""

from __future__ import annotations

from collections.abc import Callable

from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.inputs import InputQueue
from edgeclave.simulator.mqtt.codec import Publish, encode_publish
from edgeclave.simulator.store import Store

MAX_IN_FLIGHT = 16  # inputs sent and not acknowledged; bounds what a slow module makes us hold in memory
MAX_SUBSCRIPTIONS = 32
_MAX_PACKET_ID = 0xFFFF


class Session:
    """Lives as long as the server knows the client; `connected` and `disconnected` frame each connection."""

    def __init__(
        self,
        name: IdentityName,
        store: Store,
        inputs: InputQueue,
        *,
        last_of_earlier_run: int = 0,
        held_back: Callable[[], bool] = lambda: False,
    ) -> None:
        """Args:
        last_of_earlier_run: the newest input that waited when the simulator started.
        held_back: whether what waits cannot reach it now.
        """
        self.name = name
        self._store = store
        self._inputs = inputs
        self._held_back = held_back
        self._in_flight: dict[int, int] = {}  # packet id -> number of the queued input
        self._sent: set[int] = set()  # inputs sent on an earlier connection and not acknowledged
        self._last_packet_id = 0
        self._write: Callable[[bytes], None] | None = None
        rows = store.connection.execute(
            "SELECT topic_filter, qos FROM subscriptions WHERE device_id = ? AND module_id = ?", name
        )
        self.subscriptions: dict[str, int] = {row["topic_filter"]: row["qos"] for row in rows}
        self.present = bool(self.subscriptions)
        self._perhaps_sent = last_of_earlier_run if self._input_filter in self.subscriptions else 0

    def connected(self, write: Callable[[bytes], None], *, clean: bool) -> None:
        self._take_back()
        self._write = write
        if clean:
            self.subscriptions.clear()
            with self._store.write() as connection:
                connection.execute("DELETE FROM subscriptions WHERE device_id = ? AND module_id = ?", self.name)
                if self.name.module_id:  # messages from the cloud wait for a device whatever its session
                    connection.execute("DELETE FROM inputs WHERE device_id = ? AND module_id = ?", self.name)
        self.present = not clean

    def disconnected(self) -> None:
        self._write = None
        self._take_back()

    def subscribe(self, topic_filter: str, qos: int) -> bool:
        """Whether the subscription is accepted. It is on disk after the next commit."""
        if topic_filter not in self.subscriptions and len(self.subscriptions) >= MAX_SUBSCRIPTIONS:
            return False
        if self.subscriptions.get(topic_filter) != qos:
            with self._store.write() as connection:
                connection.execute(
                    "INSERT OR REPLACE INTO subscriptions VALUES (?, ?, ?, ?)", (*self.name, topic_filter, qos)
                )
            self.subscriptions[topic_filter] = qos
        return True

    def unsubscribe(self, topic_filter: str) -> None:
        if self.subscriptions.pop(topic_filter, None) is not None:
            with self._store.write() as connection:
                connection.execute(
                    "DELETE FROM subscriptions WHERE device_id = ? AND module_id = ? AND topic_filter = ?",
                    (*self.name, topic_filter),
                )

    def deliver(self) -> None:
        """Sends waiting inputs up to the window. Call when some arrived, or there is room again."""
        if self._write is None or self._input_filter not in self.subscriptions or self._held_back():
            return
        room = MAX_IN_FLIGHT - len(self._in_flight)
        if room <= 0:
            return
        for queued in self._inputs.next(self.name, room, except_numbers=set(self._in_flight.values())):
            packet_id = self._next_packet_id()
            duplicate = queued.number in self._sent or queued.number <= self._perhaps_sent
            self._in_flight[packet_id] = queued.number
            self._write(encode_publish(Publish(queued.topic, queued.body, 1, packet_id, duplicate)))

    def acknowledged(self, packet_id: int) -> None:
        """The module has this input; it is never sent again."""
        number = self._in_flight.pop(packet_id, None)
        if number is not None:
            self._inputs.remove(number)
            self._sent.discard(number)
            self.deliver()

    def _take_back(self) -> None:
        """What was sent and not acknowledged waits again."""
        taken = list(self._in_flight.values())
        self._in_flight.clear()
        self._sent.update(taken)
        for number in taken:
            self._inputs.returned(number)

    @property
    def _input_filter(self) -> str:
        if not self.name.module_id:
            return f"devices/{self.name.device_id}/messages/devicebound/#"
        return f"devices/{self.name.device_id}/modules/{self.name.module_id}/inputs/#"

    def _next_packet_id(self) -> int:
        while True:
            self._last_packet_id = self._last_packet_id % _MAX_PACKET_ID + 1
            if self._last_packet_id not in self._in_flight:
                return self._last_packet_id
