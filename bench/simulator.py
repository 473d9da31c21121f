"""The simulator with a raw MQTT client, against what one client of the SDK asks of it.

The simulator runs in a process of its own; durability is on, as always. QoS 1 over TLS throughout.
"""

from __future__ import annotations

import os
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]
from azure.iot.device import IoTHubModuleClient, Message
from paho.mqtt import client as mqtt  # type: ignore[import-untyped]

from bench.row import Row
from bench.simulator_process import simulator_process
from edgeclave.simulator import Simulator, SimulatorThread
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.sas import make_token

SDK_MESSAGES, RAW_MESSAGES, WINDOW = 500, 5000, 100
HOPS = 300
SOAK_MESSAGES, SETTLED_MESSAGES = 100_000, 10_000
BODY = b"x" * 256
ROUTES = {
    "up": "FROM /messages/modules/raw/* INTO $upstream",
    "sdk": "FROM /messages/modules/sdk/* INTO $upstream",
    "in": 'FROM /messages/modules/hop/* INTO BrokeredEndpoint("/modules/hop/inputs/i")',
}


@dataclass
class Target:
    """Where the simulator of the other process is."""

    pid: int
    address: str
    port: int
    hub_host: str
    ca_file: str
    keys: dict[str, str]
    environment: dict[str, str]


def rows() -> list[Row]:
    with simulator_process(_describe) as target:
        sequential, raw = _sdk_rate(target), _raw_rate(target, RAW_MESSAGES)
        hop, acknowledgement = _hop_milliseconds(target)
        _raw_rate(target, SETTLED_MESSAGES)
        before = _memory(target)
        _raw_rate(target, SOAK_MESSAGES)
        after = _memory(target)
    one_by_one = "azure-iot-device, one after the other"
    return [
        Row("simulator: raw MQTT client, 100 in flight", one_by_one, "msg/s", raw, sequential, 5, at_least=True),
        Row("simulator: what a route adds, p50", "1 ms", "ms", max(hop - acknowledgement, 0.0), 1.0, 1.0),
        Row("simulator: memory after 100,000 more messages", "after the first 10,000", "MiB", after, before, 1.1),
    ]


def _describe(simulator: SimulatorThread) -> Target:
    environment = {module: simulator.environment(module) for module in ("sdk", "raw", "hop")}
    return simulator.call(lambda running: _target(running, environment["sdk"]))


def _target(running: Simulator, environment: dict[str, str]) -> Target:
    device = running.device_id
    hub = IdentityName(device, "$edgeHub")
    running.hub.twins.update(hub, desired={"schemaVersion": "1.2", "routes": ROUTES}, replace=True)
    settings = running.settings
    keys = {name: running.state.module(name).primary_key for name in ("raw", "hop")}
    return Target(
        os.getpid(), settings.address, settings.ports.mqtt, settings.hub_host, running.ca_file, keys, environment
    )


def _memory(target: Target) -> float:
    time.sleep(1)
    return float(psutil.Process(target.pid).memory_info().rss) / (1 << 20)


def _sdk_rate(target: Target) -> float:
    """Messages per second of one client that awaits each."""
    kept = {name: os.environ.get(name) for name in target.environment}
    os.environ.update(target.environment)
    try:
        client = IoTHubModuleClient.create_from_edge_environment()
        client.connect()
        begin = time.perf_counter()
        for _ in range(SDK_MESSAGES):
            client.send_message_to_output(Message(BODY), "out")  # type: ignore[no-untyped-call]
        seconds = time.perf_counter() - begin
        client.shutdown()
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    return SDK_MESSAGES / seconds


def _connected(target: Target, module: str) -> mqtt.Client:
    client = mqtt.Client(f"edge01/{module}", clean_session=False)
    client.username_pw_set(
        f"{target.hub_host}/edge01/{module}/?api-version=2019-10-01",
        make_token(f"{target.hub_host}/devices/edge01/modules/{module}", target.keys[module]),
    )
    client.tls_set_context(ssl.create_default_context(cafile=target.ca_file))
    client.max_inflight_messages_set(WINDOW)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect(target.address, target.port)
    client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else Nagle's 40 ms are measured
    client.loop_start()
    if not connected.wait(10):
        raise TimeoutError("the simulator does not answer")
    return client


def _raw_rate(target: Target, count: int) -> float:
    """Messages per second with a window in flight, until the last is acknowledged."""
    client = _connected(target, "raw")
    room, done = threading.Semaphore(WINDOW), threading.Event()
    acknowledged = 0

    def published(*_: Any) -> None:
        nonlocal acknowledged
        acknowledged += 1
        room.release()
        if acknowledged == count:
            done.set()

    client.on_publish = published
    begin = time.perf_counter()
    for _ in range(count):
        room.acquire()
        client.publish("devices/edge01/modules/raw/messages/events/%24.on=out", BODY, qos=1)
    if not done.wait(60):
        raise TimeoutError(f"{acknowledged} of {count} messages were acknowledged")
    seconds = time.perf_counter() - begin
    _close(client)
    return count / seconds


def _hop_milliseconds(target: Target) -> tuple[float, float]:
    """Medians from a publish: to its arrival at an input by a route, and to its acknowledgement without one."""
    client = _connected(target, "hop")
    event = threading.Event()
    client.subscribe("devices/edge01/modules/hop/inputs/#", qos=1)
    time.sleep(0.5)
    client.on_message = lambda *_: event.set()
    routed = _median(lambda: _publish(client, event, "hop"))
    client.on_message = None
    _close(client)
    client = _connected(target, "raw")
    client.on_publish = lambda *_: event.set()
    plain = _median(lambda: _publish(client, event, "raw"))
    _close(client)
    return routed, plain


def _publish(client: mqtt.Client, event: threading.Event, module: str) -> None:
    event.clear()
    client.publish(f"devices/edge01/modules/{module}/messages/events/%24.on=out", BODY, qos=1)
    if not event.wait(10):
        raise TimeoutError("no answer")


def _median(call: Callable[[], None]) -> float:
    times = []
    for _ in range(HOPS):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def _close(client: mqtt.Client) -> None:
    client.disconnect()
    client.loop_stop()
