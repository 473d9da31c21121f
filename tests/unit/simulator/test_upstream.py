"""edgeHub's store-and-forward, and what each side of a twin sees during an outage."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgeclave.edge.store import StoreError
from edgeclave.simulator.credentials import SELF_SIGNED, Credentials
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.identities import Identities, IdentityName
from edgeclave.simulator.message import Message
from edgeclave.simulator.message_log import StoredMessageLog
from edgeclave.simulator.store import Store
from edgeclave.simulator.twin_view import twin_view
from edgeclave.simulator.twins import DesiredChange, Twins
from tests.fixtures.waiting import eventually

MODULE, EDGE_HUB = IdentityName("edge01", "m1"), IdentityName("edge01", "$edgeHub")
ROUTES = {
    "urgent": {"route": "FROM /messages/modules/m1/outputs/urgent INTO $upstream", "priority": 0},
    "short": {"route": "FROM /messages/modules/m1/outputs/short INTO $upstream", "timeToLiveSecs": 1},
    "rest": {"route": "FROM /messages/modules/m1/outputs/rest INTO $upstream", "priority": 5},
}


class Device:
    """An edge hub on a store, as the simulator makes it at each start."""

    def __init__(self, store: Store) -> None:
        self.log = StoredMessageLog(store)
        self.identities = Identities(store, "127.9.9")
        self.twins = Twins(store)
        if self.identities.find(EDGE_HUB) is None:
            for name in (IdentityName("edge01"), EDGE_HUB, MODULE):
                self.identities.create(name)
            self.twins.update(EDGE_HUB, desired={"schemaVersion": "1.2", "routes": ROUTES})
        self.hub = EdgeHub(store, self.identities, self.twins, self.log, "edge01")
        self._store = store

    async def set_online(self, online: bool) -> None:
        self.hub.upstream.set_online(online)
        await self._store.committed()

    async def send(self, output: str, body: bytes) -> None:
        self.hub.accept(self.identities.get(MODULE), Message(body, {}, {"$.on": output}))
        await self._store.committed()

    @property
    def arrived(self) -> list[bytes]:
        return [entry.body for partition in self.log.partitions for entry in self.log.read(partition, -1, 10_000)]


@pytest.fixture
def device(store: Store) -> Device:
    return Device(store)


async def test_online_a_message_is_upstream_when_it_is_acknowledged(device: Device) -> None:
    await device.send("rest", b"1")
    assert device.arrived == [b"1"]


async def test_an_event_says_what_sent_it_and_how_it_proved_itself(device: Device, store: Store) -> None:
    await device.send("rest", b"1")
    leaf = device.identities.create(IdentityName("leaf"), Credentials(SELF_SIGNED, primary_thumbprint="A" * 40))
    device.hub.accept(leaf, Message(b"2"))
    await store.committed()
    methods = {
        entry.system["iothub-connection-device-id"]: json.loads(entry.system["iothub-connection-auth-method"])
        for partition in device.log.partitions
        for entry in device.log.read(partition, -1, 10)
    }
    assert methods == {
        "edge01": {"scope": "module", "type": "sas", "issuer": "iothub"},
        "leaf": {"scope": "device", "type": "x509", "issuer": "iothub"},
    }


async def test_messages_wait_out_an_outage_and_a_restart_in_order_of_priority_and_age(
    device: Device, store: Store, tmp_path: Path
) -> None:
    await device.set_online(False)
    for number in range(150):  # more than one batch
        await device.send("rest", f"r{number}".encode())
        await device.send("urgent", f"u{number}".encode())
    assert device.arrived == []
    store.close()
    again = Device(reopened := Store(tmp_path / "state.sqlite"))
    assert (again.hub.upstream.online, again.hub.upstream.waiting) == (False, 300)
    await again.set_online(True)
    await again.send("urgent", b"after")  # does not overtake the urgent ones that wait
    await eventually(lambda: len(again.arrived) == 301)
    urgent = [f"u{number}".encode() for number in range(150)]
    assert [body for body in again.arrived if body[:1] in b"ua"] == [*urgent, b"after"]
    assert [body for body in again.arrived if body[:1] == b"r"] == [f"r{number}".encode() for number in range(150)]
    assert again.arrived[:100] == urgent[:100]
    assert again.hub.upstream.waiting == 0
    reopened.close()


async def test_what_is_older_than_its_time_to_live_is_dropped(
    device: Device, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await device.set_online(False)
    await device.send("short", b"old")
    await device.send("rest", b"kept")
    import time

    now = time.time()
    monkeypatch.setattr("edgeclave.simulator.upstream.time.time", lambda: now + 2)
    await device.set_online(True)
    await eventually(lambda: device.hub.upstream.waiting == 0)
    assert device.arrived == [b"kept"]
    await device.set_online(False)
    await device.send("short", b"old again")
    monkeypatch.setattr("edgeclave.simulator.upstream.time.time", lambda: now + 4)
    device.hub.upstream.forget_expired()
    await store.committed()
    assert device.hub.upstream.waiting == 0


async def test_a_full_disk_refuses_the_message_and_keeps_what_was_acknowledged(device: Device, store: Store) -> None:
    await device.set_online(False)
    await device.send("rest", b"first")
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError) as refused:
        await device.send("rest", b"x" * 200_000)
    assert refused.value.code == "disk-full"
    store.connection.execute("PRAGMA max_page_count = 1000000")
    await device.send("rest", b"second")
    await device.set_online(True)
    await eventually(lambda: len(device.arrived) == 2)
    assert device.arrived == [b"first", b"second"]


async def test_during_an_outage_each_side_sees_the_others_last_known_properties(device: Device, store: Store) -> None:
    twins, heard = device.twins, list[DesiredChange]()
    twins.on_desired.append(heard.append)
    twins.update(MODULE, desired={"a": 1, "gone": 1})
    twins.patch_reported(MODULE, {"r": 1})
    await device.set_online(False)
    heard.clear()
    twins.update(MODULE, desired={"a": 2, "gone": None})
    twins.update(MODULE, desired={"a": 3})
    twins.patch_reported(MODULE, {"r": 2})
    twins.patch_reported(MODULE, {"s": 3})
    await store.committed()

    def sides() -> tuple[Any, ...]:
        edge, hub = twins.at_edge(MODULE), twins.get(MODULE)
        return edge.desired, edge.reported, hub.desired, hub.reported

    assert sides() == ({"a": 1, "gone": 1}, {"r": 2, "s": 3}, {"a": 3}, {"r": 1})
    assert heard == []
    await device.set_online(True)
    await store.committed()
    assert sides() == ({"a": 3}, {"r": 2, "s": 3}, {"a": 3}, {"r": 2, "s": 3})
    assert heard == [DesiredChange(MODULE, {"a": 3, "gone": None}, twins.get(MODULE).desired_version)]


async def test_a_change_and_back_again_during_an_outage_is_no_change(device: Device, store: Store) -> None:
    heard: list[DesiredChange] = []
    device.twins.update(MODULE, desired={"a": 1})
    await device.set_online(False)
    device.twins.on_desired.append(heard.append)
    device.twins.update(MODULE, desired={"a": 2})
    device.twins.update(MODULE, desired={"a": 1})
    await device.set_online(True)
    await store.committed()
    assert heard == []


async def test_what_was_reported_during_an_outage_is_told_of_when_it_ends(device: Device, store: Store) -> None:
    await device.set_online(False)
    device.twins.patch_reported(MODULE, {"r": 1})
    await store.committed()
    seen: list[object] = []
    device.twins.on_changed.append(lambda name: seen.append((name, device.twins.get(name).reported)))
    await device.set_online(True)
    await store.committed()
    assert seen == [(MODULE, {"r": 1})]


async def test_during_an_outage_the_service_sees_what_it_last_heard(device: Device, store: Store) -> None:
    device.twins.patch_reported(MODULE, {"r": 1})
    await device.set_online(False)
    device.twins.patch_reported(MODULE, {"r": 2})
    view = twin_view(device.hub, device.identities.get(MODULE))
    assert view["properties"]["reported"]["r"] == 1
    assert view["connectionState"] == "Disconnected"


async def test_edge_hub_is_connected_to_iot_hub_except_in_an_outage(device: Device, store: Store) -> None:
    edge_hub = device.identities.get(EDGE_HUB)
    assert twin_view(device.hub, edge_hub)["connectionState"] == "Connected"
    await device.set_online(False)
    assert twin_view(device.hub, edge_hub)["connectionState"] == "Disconnected"


async def test_other_devices_are_not_cut_off(device: Device, store: Store) -> None:
    other = IdentityName("edge02")
    device.identities.create(other)
    await device.set_online(False)
    assert device.hub.cut_off(MODULE)
    assert not device.hub.cut_off(other)


async def test_a_device_of_its_own_reaches_modules_and_iot_hub(device: Device, store: Store) -> None:
    leaf = device.identities.create(IdentityName("leaf"))
    route = "FROM /messages WHERE alarm = 'yes' INTO BrokeredEndpoint(\"/modules/m1/inputs/alarms\")"
    device.twins.update(EDGE_HUB, desired={"routes": {"alarms": route}})
    await store.committed()
    device.hub.accept(leaf, Message(b"calm"))
    device.hub.accept(leaf, Message(b"alarm", {"alarm": "yes"}))
    await store.committed()
    assert device.arrived == [b"calm"]  # what no route matches goes to IoT Hub
    assert [queued.body for queued in device.hub.inputs.next(MODULE, 10)] == [b"alarm"]


async def test_reported_properties_and_their_message_are_stored_together_or_not_at_all(
    device: Device, store: Store
) -> None:
    device.twins.update(EDGE_HUB, desired={"routes": {"changes": "FROM /twinChangeNotifications INTO $upstream"}})
    await store.committed()
    assert device.hub.patch_reported(MODULE, {"rpm": 60, "$version": 7}) == 2
    await store.committed()
    assert device.arrived == [b'{"rpm":60}']
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count = {pages}")

    async def report_until_full() -> None:
        for number in range(100):
            device.hub.patch_reported(MODULE, {"filler": ["x" * 4000] * 7, "number": number})
            await store.committed()

    with pytest.raises(StoreError):
        await report_until_full()
    reported = device.twins.at_edge(MODULE)
    assert reported.reported_version == 1 + len(device.arrived)
