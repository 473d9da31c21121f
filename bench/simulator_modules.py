"""A hundred modules on one simulator: all stay connected, and what one waits for its twin beside the others.

The simulator runs in a process of its own. Reads and patches of twins are asked in turn over all modules, so that what
grows with their number is seen; a module that was disconnected ends the measurement.
"""

from __future__ import annotations

import socket
import ssl
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paho.mqtt import client as mqtt  # type: ignore[import-untyped]

from bench.row import Row
from bench.simulator_process import simulator_process
from edgeclave.simulator import Simulator, SimulatorThread
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.sas import make_token

MODULES, PER_DEVICE = 100, 40  # a device has at most 50
EXCHANGES = 300
ANSWERS = "$iothub/twin/res/#"


@dataclass
class Target:
    """Where the simulator of the other process is, and the keys of its modules."""

    address: str
    port: int
    hub_host: str
    ca_file: str
    keys: dict[IdentityName, str]


class Module:
    """One connected client that exchanges its twin."""

    def __init__(self, target: Target, name: IdentityName) -> None:
        self.name = name
        self.lost = False
        self._answered = threading.Event()
        self._client = mqtt.Client(str(name), clean_session=False)
        self._client.username_pw_set(
            f"{target.hub_host}/{name}/?api-version=2019-10-01",
            make_token(f"{target.hub_host}/devices/{name.device_id}/modules/{name.module_id}", target.keys[name]),
        )
        self._client.tls_set_context(ssl.create_default_context(cafile=target.ca_file))
        self._client.on_connect = lambda *_: self._client.subscribe(ANSWERS)
        self._client.on_subscribe = lambda *_: self._answered.set()
        self._client.on_message = lambda *_: self._answered.set()
        self._client.on_disconnect = self._disconnected
        self._client.connect(target.address, target.port)
        self._client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else Nagle's 40 ms are measured
        self._client.loop_start()
        self._wait()

    def exchange(self, number: int) -> float:
        """Milliseconds for reading its twin and patching its reported properties."""
        begin = time.perf_counter()
        self._ask(f"$iothub/twin/GET/?$rid={number}", b"")
        self._ask(f"$iothub/twin/PATCH/properties/reported/?$rid={number}", b'{"turn": %d}' % number)
        return (time.perf_counter() - begin) * 1e3

    def close(self) -> None:
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def _ask(self, topic: str, body: bytes) -> None:
        self._answered.clear()
        self._client.publish(topic, body, qos=1)
        self._wait()

    def _wait(self) -> None:
        if not self._answered.wait(10) or self.lost:
            raise TimeoutError(f"{self.name} was not answered")

    def _disconnected(self, *_: Any) -> None:
        self.lost = True


def rows() -> list[Row]:
    modules: list[Module] = []
    with simulator_process(_describe) as target:
        try:
            names = list(target.keys)
            modules.append(Module(target, names[0]))
            alone = _median(modules)
            modules += [Module(target, name) for name in names[1:]]
            together = _median(modules)
            if lost := [str(module.name) for module in modules if module.lost]:
                raise ConnectionError(f"disconnected: {', '.join(lost)}")
        finally:
            for module in modules:
                module.close()
    what = f"simulator: twin read and patched, one of {MODULES} modules, p50"
    return [Row(what, "the only module", "ms", together, alone, 1.5)]


def _median(modules: Sequence[Module]) -> float:
    return statistics.median(modules[number % len(modules)].exchange(number) for number in range(EXCHANGES))


def _describe(simulator: SimulatorThread) -> Target:
    return simulator.call(_target)


def _target(running: Simulator) -> Target:
    identities, keys = running.hub.identities, {}
    for number in range(MODULES):
        device = IdentityName(f"edge{1 + number // PER_DEVICE:02d}")
        if identities.find(device) is None:
            identities.create(device)
        made = identities.create(IdentityName(device.device_id, f"m{number}"))
        keys[made.name] = made.primary_key
    settings = running.settings
    return Target(settings.address, settings.ports.mqtt, settings.hub_host, running.ca_file, keys)
