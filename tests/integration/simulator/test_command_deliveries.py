"""How often a message to a device is tried, and what becomes of one that is never taken; read off the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeclave.simulator import Simulator, SimulatorThread
from edgeclave.simulator.cloud_to_device import MAX_DELIVERIES, Command
from edgeclave.simulator.identities import IdentityName
from tests.fixtures.waiting import eventually

from .test_mqtt_redelivery import connected

LEAF, EDGE = IdentityName("leaf"), IdentityName("edge01")


def send(simulator: SimulatorThread, message_id: str, *, to: IdentityName = LEAF, ack: str = "full") -> None:
    command = Command(to.device_id, message_id.encode(), {"iothub-ack": ack}, {"$.mid": message_id})
    simulator.call(lambda running: running.iot_hub.commands.send(command))


def waiting(simulator: SimulatorThread, name: IdentityName = LEAF) -> int:
    return simulator.call(lambda running: running.hub.inputs.count(name))


def feedback(running: Simulator) -> list[tuple[str, str]]:
    batch = running.iot_hub.commands.feedback()
    if batch is None:
        return []
    running.iot_hub.commands.complete(batch.token)
    return [(record["originalMessageId"], record["statusCode"]) for record in batch.records]


@pytest.fixture
def leaf(simulator: SimulatorThread) -> SimulatorThread:
    simulator.call(lambda running: running.hub.identities.create(LEAF))
    return simulator


async def take_in_vain(simulator: SimulatorThread, times: int) -> None:
    """The device gets the message and leaves without acknowledging it."""
    for number in range(times):
        async with connected(simulator, LEAF) as wire:
            ((body, duplicate, _),) = await wire.inputs(1)
            assert body == b"m"
            assert duplicate or number == 0


@pytest.mark.parametrize(
    ("ack", "records"),
    [("full", [("m", "DeliveryCountExceeded")]), ("negative", [("m", "DeliveryCountExceeded")]), ("positive", [])],
)
async def test_what_is_never_taken_is_dead_lettered(leaf: SimulatorThread, ack: str, records: list[Any]) -> None:
    send(leaf, "m", ack=ack)
    await take_in_vain(leaf, MAX_DELIVERIES - 1)
    assert waiting(leaf) == 1
    assert leaf.call(feedback) == []
    await take_in_vain(leaf, 1)
    await eventually(lambda: waiting(leaf) == 0)
    assert leaf.call(feedback) == records
    async with connected(leaf, LEAF) as wire:
        assert await wire.silent()


async def test_the_last_try_may_still_succeed(leaf: SimulatorThread) -> None:
    send(leaf, "m")
    await take_in_vain(leaf, MAX_DELIVERIES - 1)
    async with connected(leaf, LEAF) as wire:
        ((_, _, packet_id),) = await wire.inputs(1)
        wire.acknowledge(packet_id)
        await eventually(lambda: waiting(leaf) == 0)
    assert leaf.call(feedback) == [("m", "Success")]


async def test_deliveries_are_counted_over_a_restart(tmp_path: Path) -> None:
    with SimulatorThread(tmp_path / "sim") as first:
        first.call(lambda running: running.hub.identities.create(LEAF))
        send(first, "m")
        await take_in_vain(first, MAX_DELIVERIES - 2)
    with SimulatorThread(tmp_path / "sim") as second:
        await take_in_vain(second, 2)
        await eventually(lambda: waiting(second) == 0)
        assert second.call(feedback) == [("m", "DeliveryCountExceeded")]


async def test_an_outage_holds_messages_to_the_edge_device_back_and_not_those_to_others(leaf: SimulatorThread) -> None:
    leaf.call(lambda running: running.hub.upstream.set_online(False))
    async with connected(leaf, EDGE) as edge, connected(leaf, LEAF) as other:
        send(leaf, "to the edge", to=EDGE)
        send(leaf, "to another")
        assert [body for body, _, _ in await other.inputs(1)] == [b"to another"]
        assert await edge.silent()
        leaf.call(lambda running: running.hub.upstream.set_online(True))
        ((body, duplicate, packet_id),) = await edge.inputs(1)
        assert (body, duplicate) == (b"to the edge", False)
        edge.acknowledge(packet_id)
        await eventually(lambda: waiting(leaf, EDGE) == 0)
    assert leaf.call(feedback) == [("to the edge", "Success")]
