"""A hundred modules on one simulator stay connected and exchange twins."""

import asyncio
import json
import ssl
import struct

from edgeclave.simulator import Simulator, SimulatorThread
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.mqtt.codec import Publish, encode_publish
from edgeclave.simulator.sas import make_token

COUNT, PER_DEVICE = 100, 40  # a device has at most 50
FILTERS = ("$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#")


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


def packet(first: int, body: bytes) -> bytes:
    header, length = bytearray([first]), len(body)
    while length > 127:
        header.append(length & 127 | 128)
        length >>= 7
    return bytes([*header, length]) + body


class Module:
    """The bytes that a module's client would exchange."""

    def __init__(self, name: IdentityName, key: str, hub: str) -> None:
        token = make_token(f"{hub}/devices/{name.device_id}/modules/{name.module_id}", key)
        login = text(str(name)) + text(f"{hub}/{name}/?api-version=2019-10-01") + text(token)
        self.hello = packet(0x10, text("MQTT") + b"\x04\xc0\0\x3c" + login)
        self.hello += packet(0x82, b"\0\1" + b"".join(text(each) + b"\0" for each in FILTERS))
        self.name = name
        self.received = b""

    async def connect(self, address: str, port: int, context: ssl.SSLContext) -> None:
        self.reader, self.writer = await asyncio.open_connection(address, port, ssl=context)
        await self.ask(self.hello, b"\x90")

    async def ask(self, data: bytes, wanted: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(30):
            while wanted not in self.received:
                part = await self.reader.read(65536)
                assert part, f"{self.name} was disconnected"
                self.received += part


def make_modules(running: Simulator) -> list[Module]:
    modules = []
    for number in range(COUNT):
        device = IdentityName(f"edge{1 + number // PER_DEVICE:02d}")
        if running.hub.identities.find(device) is None:
            running.hub.identities.create(device)
        identity = running.hub.identities.create(IdentityName(device.device_id, f"m{number}"))
        modules.append(Module(identity.name, identity.primary_key, running.settings.hub_host))
    return modules


async def test_a_hundred_modules_stay_connected_and_exchange_twins(simulator: SimulatorThread) -> None:
    modules = simulator.call(make_modules)
    settings = simulator.call(lambda running: running.settings)
    context = ssl.create_default_context(cafile=simulator.ca_file)
    await asyncio.gather(*(each.connect(settings.address, settings.ports.mqtt, context) for each in modules))
    for turn in range(3):
        reported = "$iothub/twin/PATCH/properties/reported/?$rid=r" + str(turn)
        get = "$iothub/twin/GET/?$rid=g" + str(turn)
        await asyncio.gather(
            *(
                each.ask(
                    encode_publish(Publish(reported, json.dumps({"turn": turn}).encode()))
                    + encode_publish(Publish(get, b"")),
                    f"twin/res/200/?$rid=g{turn}".encode(),
                )
                for each in modules
            )
        )
        waiting = [asyncio.create_task(each.ask(b"", f'"wanted": {turn}'.encode())) for each in modules]
        names = [each.name for each in modules]
        simulator.call(lambda running, turn=turn, names=names: [  # type: ignore[misc]
            running.hub.twins.update(name, desired={"wanted": turn}) for name in names
        ])  # fmt: skip
        await asyncio.gather(*waiting)
    connected = simulator.call(lambda running: [running.hub.links.get(name) for name in names])
    assert None not in connected
    twins = simulator.call(lambda running: [running.hub.twins.get(name).reported for name in names])
    assert twins == [{"turn": 2}] * COUNT
    for each in modules:
        each.writer.transport.abort()
