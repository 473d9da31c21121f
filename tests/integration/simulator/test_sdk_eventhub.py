"""Devices send by azure-iot-device, services read by azure-eventhub: groups, positions, shares of the work."""

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, cast

import pytest
from azure.eventhub import EventData
from azure.eventhub.aio import CheckpointStore, EventHubConsumerClient
from azure.iot.device import Message

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.identities import IdentityName

PATIENCE = 30.0


def body_of(event: EventData) -> str:
    return b"".join(cast("Iterable[bytes]", event.body)).decode()


class MemoryCheckpoints(CheckpointStore):
    """The least that the SDK documents a checkpoint store to be: ownership by etag, checkpoints by partition."""

    def __init__(self) -> None:
        self.ownership: dict[tuple[str, str], dict[str, Any]] = {}
        self.checkpoints: dict[tuple[str, str], dict[str, Any]] = {}
        self._etag = 0

    async def list_ownership(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        return [dict(each) for each in self.ownership.values()]

    async def claim_ownership(self, ownership_list: Any, **_: Any) -> list[dict[str, Any]]:
        claimed = []
        for wanted in ownership_list:
            key = (wanted["consumer_group"], wanted["partition_id"])
            present = self.ownership.get(key)
            if present is not None and present["etag"] != wanted.get("etag"):
                continue
            self._etag += 1
            now = datetime.datetime.now(datetime.UTC).timestamp()
            self.ownership[key] = {**wanted, "etag": str(self._etag), "last_modified_time": now}
            claimed.append(dict(self.ownership[key]))
        return claimed

    async def update_checkpoint(self, checkpoint: Any, **_: Any) -> None:
        self.checkpoints[checkpoint["consumer_group"], checkpoint["partition_id"]] = dict(checkpoint)

    async def list_checkpoints(self, _host: Any, _hub: Any, consumer_group: str, **_: Any) -> list[dict[str, Any]]:
        return [dict(each) for (group, _), each in self.checkpoints.items() if group == consumer_group]


class Worker:
    """One consumer client with its events."""

    def __init__(self, simulator: SimulatorThread, group: str, store: MemoryCheckpoints | None = None) -> None:
        self.events: list[EventData] = []
        self.partitions: set[str] = set()
        self.errors: list[Exception] = []
        self._client = EventHubConsumerClient.from_connection_string(
            simulator.connection_string("eventhub"),
            consumer_group=group,
            connection_verify=simulator.ca_file,
            checkpoint_store=store,
            load_balancing_interval=1,
            partition_ownership_expiration_interval=3,
        )
        self._checkpoint = store is not None
        self._task: asyncio.Task[None] | None = None

    @property
    def bodies(self) -> list[str]:
        return [body_of(event) for event in self.events]

    def start(self, position: Any = "-1", **options: Any) -> None:
        self._task = asyncio.create_task(
            self._client.receive(
                on_event=self._on_event,
                on_error=self._on_error,
                starting_position=position,
                max_wait_time=0.2,
                **options,
            )
        )

    async def _on_event(self, context: Any, event: EventData | None) -> None:
        self.partitions.add(context.partition_id)
        if event is not None:
            self.events.append(event)
            if self._checkpoint:
                await context.update_checkpoint(event)

    async def _on_error(self, _context: Any, error: Exception) -> None:
        self.errors.append(error)

    async def stop(self) -> None:
        await self._client.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def worker(simulator: SimulatorThread) -> AsyncIterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(group: str = "$Default", store: MemoryCheckpoints | None = None) -> Worker:
        made.append(Worker(simulator, group, store))
        return made[-1]

    yield make
    await asyncio.gather(*(each.stop() for each in made))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.05)


def put(simulator: SimulatorThread, device: str, *bodies: str) -> None:
    """Messages of a device of the hub, as if it had sent them."""

    def append(running: Any) -> None:
        name = IdentityName(device)
        identity = running.hub.identities.find(name) or running.hub.identities.create(name)
        for body in bodies:
            running.hub.accept(identity, running_message(body))

    simulator.call(append)


def running_message(body: str) -> Any:
    from edgeclave.simulator.message import Message as Stored

    return Stored(body.encode())


async def test_a_sent_message_is_an_event_with_iot_hubs_annotations(
    simulator: SimulatorThread, connect: Any, worker: Any
) -> None:
    client = await connect(simulator.environment("sensor"))
    message: Any = Message(  # type: ignore[no-untyped-call]
        '{"t": 21}', message_id="m-1", content_type="application/json", content_encoding="utf-8"
    )
    message.custom_properties["level"] = "high"
    before = datetime.datetime.now(datetime.UTC)
    await client.send_message_to_output(message, "out")
    reader = worker()
    reader.start()
    await until(lambda: reader.events)
    (event,) = reader.events
    assert event.body_as_json() == {"t": 21}
    assert (event.message_id, event.content_type) == ("m-1", "application/json")
    assert event.raw_amqp_message.properties is not None
    assert event.raw_amqp_message.properties.content_encoding == b"utf-8"
    assert event.properties == {b"level": b"high"}
    assert event.system_properties[b"iothub-connection-device-id"] == b"edge01"
    assert event.system_properties[b"iothub-connection-module-id"] == b"sensor"
    assert event.system_properties[b"iothub-message-source"] == b"Telemetry"
    assert abs(event.enqueued_time - before) < datetime.timedelta(seconds=10)
    assert event.sequence_number == 0


async def test_a_device_keeps_its_partition_and_its_order(simulator: SimulatorThread, worker: Any) -> None:
    devices = [f"device-{number}" for number in range(6)]
    for number in range(20):
        for device in devices:
            put(simulator, device, str(number))
    reader = worker()
    reader.start()
    await until(lambda: len(reader.events) == 120)
    seen: dict[bytes, list[str]] = {}
    for event in reader.events:
        seen.setdefault(event.system_properties[b"iothub-connection-device-id"], []).append(body_of(event))
    assert all(bodies == [str(number) for number in range(20)] for bodies in seen.values())
    assert reader.partitions == {"0", "1"}


async def test_groups_read_on_their_own(simulator: SimulatorThread, worker: Any) -> None:
    put(simulator, "d", "a", "b")
    first, second = worker("$Default"), worker("analysis")
    first.start()
    await until(lambda: first.bodies == ["a", "b"])
    second.start()
    await until(lambda: second.bodies == ["a", "b"])


@pytest.mark.parametrize("inclusive", [pytest.param(False, id="after it"), pytest.param(True, id="from it on")])
@pytest.mark.parametrize("kind", ["offset", "sequence number", "time"])
async def test_positions(simulator: SimulatorThread, worker: Any, kind: str, inclusive: bool) -> None:
    for body in "abcd":
        put(simulator, "d", body)
        await asyncio.sleep(0.02)  # so that each has a time of its own
    whole = worker()
    whole.start()
    await until(lambda: len(whole.events) == 4)
    second = whole.events[1]
    position = {"offset": second.offset, "sequence number": second.sequence_number, "time": second.enqueued_time}
    reader = worker("other")
    reader.start(position[kind], starting_position_inclusive=inclusive)
    await until(lambda: reader.bodies == (["b", "c", "d"] if inclusive else ["c", "d"]))


async def test_latest_sees_only_what_comes_after(simulator: SimulatorThread, worker: Any) -> None:
    put(simulator, "d", "old")
    reader = worker()
    reader.start("@latest")
    await until(lambda: reader.partitions == {"0", "1"})
    await asyncio.sleep(1)  # the SDK says that nothing came before it has begun to read
    put(simulator, "d", "new")
    await until(lambda: reader.bodies == ["new"])


async def test_two_workers_share_the_partitions_and_a_third_goes_on_from_their_checkpoints(
    simulator: SimulatorThread, worker: Any
) -> None:
    devices = [f"device-{number}" for number in range(6)]
    store = MemoryCheckpoints()
    first, second = worker(store=store), worker(store=store)
    first.start()
    await until(lambda: first.partitions == {"0", "1"})
    second.start()

    def owners() -> set[str]:
        return {each["owner_id"] for each in store.ownership.values()}

    await until(lambda: len(owners()) == 2 and second.partitions)
    rounds = 0
    while not second.bodies:  # until it has taken over, the first reads everything
        assert rounds < 60
        rounds += 1
        for device in devices:
            put(simulator, device, device)
        await asyncio.sleep(0.5)
    await until(lambda: len(first.bodies) + len(second.bodies) >= rounds * len(devices))
    await asyncio.sleep(0.5)
    shared = {event.system_properties[b"iothub-connection-device-id"] for event in second.events}
    assert shared < {device.encode() for device in devices}  # one partition, not both
    await asyncio.gather(first.stop(), second.stop())
    put(simulator, "device-0", "later")
    third = worker(store=store)
    third.start()
    await until(lambda: third.bodies == ["later"])


async def test_a_reader_with_an_epoch_takes_the_partition(simulator: SimulatorThread, worker: Any) -> None:
    first, second, third = worker(), worker(), worker()
    first.start(partition_id="0", owner_level=1)
    await until(lambda: first.partitions)
    second.start(partition_id="0", owner_level=2)
    await until(lambda: second.partitions)
    await until(lambda: any("epoch 2" in str(error) for error in first.errors))
    third.start(partition_id="0")
    await until(lambda: any("epoch 2" in str(error) for error in third.errors))
    assert not second.errors
