"""SIGKILL in mid-stream: what was acknowledged is still there, modules end with the simulator, and all goes on."""

import asyncio
import contextlib
import itertools
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from azure.eventhub.aio import EventHubConsumerClient
from azure.iot.device import Message

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.identities import IdentityName

ROUTES = {
    "up": "FROM /messages/modules/sensor/* INTO $upstream",
    "in": 'FROM /messages/modules/sensor/* INTO BrokeredEndpoint("/modules/sink/inputs/i")',
}
SYSTEM = {"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "x"}}


def solution(folder: Path, programs: dict[str, str]) -> Path:
    """A deployment template whose modules are these programs."""
    for name, program in programs.items():
        module = folder / "modules" / name
        module.mkdir(parents=True)
        (module / "main.py").write_text(program)
        image = {"repository": name, "tag": {"version": "1", "platforms": {"amd64": "Dockerfile"}}}
        (module / "module.json").write_text(json.dumps({"image": image}))
    modules = {
        name: {**SYSTEM, "settings": {"image": f"${{MODULES.{name}}}"}, "env": {"FROM_MANIFEST": {"value": "yes"}}}
        for name in programs
    }
    agent = {
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {}},
        "systemModules": {"edgeAgent": {"type": "docker", "settings": {"image": "x"}}, "edgeHub": SYSTEM},
        "modules": modules,
    }
    hub = {"schemaVersion": "1.2", "routes": ROUTES if not programs else {"up": "FROM /messages/* INTO $upstream"}}
    content = {"$edgeAgent": {"properties.desired": agent}, "$edgeHub": {"properties.desired": hub}}
    template = folder / "deployment.template.json"
    template.write_text(json.dumps({"$schema-template": "4.0.0", "modulesContent": content}))
    return template


class Commands:
    """Runs `edgeclave sim ...` on one state directory, and kills what is left at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.running: list[asyncio.subprocess.Process] = []

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "edgeclave", "sim", *arguments, "--state", str(self.state)),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.running.append(process)
        return process

    async def read(self, *arguments: str) -> Any:
        """The JSON that a command prints."""
        output, errors = await (await self.start(*arguments, "--json")).communicate()
        assert output, errors.decode()
        return json.loads(output)

    async def up(self, wanted: str = "applied") -> tuple[asyncio.subprocess.Process, list[dict[str, Any]]]:
        """Starts the simulator and waits for an event of a kind, or for a module to run."""
        process = await self.start("up", "--json")
        events: list[dict[str, Any]] = []
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.timeout(20):
            while not events or wanted not in (events[-1]["event"], events[-1].get("status")):
                line = await process.stdout.readline()
                assert line, (await process.stderr.read()).decode()
                events.append(json.loads(line))
        return process, events


@pytest.fixture
async def commands(tmp_path: Path) -> AsyncIterator[Commands]:
    made = Commands(tmp_path)
    yield made
    for process in made.running:
        if process.returncode is None:
            process.terminate()
    await asyncio.gather(*(process.communicate() for process in made.running))


async def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def read_upstream(connection_string: str, ca_file: str, count: int) -> list[bytes]:
    """The first `count` events or more, in the order of their partition."""
    client = EventHubConsumerClient.from_connection_string(
        connection_string, consumer_group="$Default", connection_verify=ca_file
    )
    bodies: list[bytes] = []
    enough = asyncio.Event()

    async def on_event(_context: object, event: Any) -> None:
        bodies.append(b"".join(event.body))
        if len(bodies) >= count:
            enough.set()

    reading = asyncio.create_task(client.receive(on_event, starting_position="-1"))
    try:
        async with asyncio.timeout(15):
            await enough.wait()
        await asyncio.sleep(0.2)
    finally:
        await client.close()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return bodies


async def send_for_ever(client: Any, acknowledged: list[bytes]) -> None:
    """Counts on, whatever happens to the connection; notes what was acknowledged.

    The SDK gives up reconnecting when it meets no proxy, and a send that it has taken then waits for a `connect`.
    """
    for number in itertools.count():
        body = str(number).encode()
        while True:
            sending = asyncio.ensure_future(client.send_message_to_output(Message(body), "out"))  # type: ignore[no-untyped-call]
            done, _ = await asyncio.wait({sending}, timeout=2)
            if done and sending.exception() is None:
                break
            with contextlib.suppress(Exception):
                await client.connect()
            await asyncio.sleep(0.1)
        acknowledged.append(body)


async def test_no_acknowledged_message_is_lost(commands: Commands, connect: Any, arrivals: Any) -> None:
    solution(commands.folder, {})
    process, _events = await commands.up()
    sink_environment = await commands.read("env", "sink")
    environment = await commands.read("env", "sensor")
    sensor = await connect(environment, connection_retry_interval=1)
    acknowledged: list[bytes] = []
    sending = asyncio.create_task(send_for_ever(sensor, acknowledged))
    for _ in range(2):
        before = len(acknowledged)
        await wait_until(lambda before=before: len(acknowledged) > before + 100)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        await process.wait()
        process, events = await commands.up()
        assert events[0]["event"] == "started"
    before = len(acknowledged)
    await wait_until(lambda: len(acknowledged) > before + 20)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    events_string = await commands.read("connection-string", "eventhub")
    bodies = await read_upstream(events_string["connectionString"], events_string["caFile"], len(acknowledged))
    assert list(dict.fromkeys(bodies))[: len(acknowledged)] == acknowledged
    got = arrivals()
    await connect(sink_environment, on_message=got.put)
    inputs = [(await got.next()).data for _ in acknowledged]
    assert set(acknowledged) <= set(inputs) | {(await got.next()).data for _ in set(acknowledged) - set(inputs)}


MODULE = """
import json, os, signal, sys, time
json.dump(dict(os.environ), open("environment.json.new", "w"))
os.rename("environment.json.new", "environment.json")
open("pid", "w").write(str(os.getpid()))
signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped in order"))
time.sleep(600)
"""
SPAWNING_MODULE = """
import subprocess, sys, time
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf])
open("child.new", "w").write(str(child.pid))
import os; os.rename("child.new", "child")
time.sleep(600)
"""


async def test_modules_end_with_a_killed_simulator_and_start_again_with_the_same_state(commands: Commands) -> None:
    solution(commands.folder, {"worker": MODULE})
    process, _events = await commands.up("running")
    pid_file = commands.state / "data/worker/pid"
    await wait_until(pid_file.exists)
    pid = int(pid_file.read_text())
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    pid_file.unlink()
    process, _events = await commands.up("running")
    await wait_until(pid_file.exists)
    process.terminate()
    output, _errors = await process.communicate()
    assert process.returncode == 0
    assert json.loads(output.splitlines()[-1]) == {"event": "stopped", "reason": "SIGTERM"}
    assert not psutil.pid_exists(int(pid_file.read_text()))
    assert (commands.state / "logs/worker.log").read_text().endswith("stopped in order\n")


async def test_a_module_gets_what_edge_agent_gives_and_nothing_of_the_user(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "x")
    solution(commands.folder, {"worker": MODULE})
    await commands.up("running")
    written = commands.state / "data/worker/environment.json"
    await wait_until(written.exists)
    given = json.loads(written.read_text())
    joined = await commands.read("env", "worker")
    assert {name: value for name, value in given.items() if name in joined} == joined
    assert set(given) - set(joined) <= {"PATH", "HOME", "LANG", "LC_CTYPE", "FROM_MANIFEST"}
    assert given["FROM_MANIFEST"] == "yes"


async def test_what_a_module_leaves_behind_is_killed_on_stop(commands: Commands) -> None:
    solution(commands.folder, {"parent": SPAWNING_MODULE})
    process, _events = await commands.up("running")
    child_file = commands.state / "data/parent/child"
    await wait_until(child_file.exists)
    process.send_signal(signal.SIGINT)
    await process.communicate()
    child = int(child_file.read_text())
    await wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


async def test_failing_modules_are_shown_with_their_last_words(commands: Commands) -> None:
    solution(commands.folder, {"broken": "raise SystemExit('no such luck')"})
    _process, events = await commands.up("backoff")
    assert "exited with code 1: no such luck; starting again in 1 s" in events[-1]["description"]
    assert Path(events[-1]["log"]).read_text() == "no such luck\n"


async def test_a_second_simulator_on_the_same_state_is_refused(commands: Commands) -> None:
    solution(commands.folder, {})
    await commands.up()
    second = await commands.start("up")
    _output, errors = await second.communicate()
    assert second.returncode == 1
    assert b"simulator-running" in errors


async def test_a_module_can_be_named_before_the_simulator_runs(commands: Commands, connect: Any) -> None:
    environment = await commands.read("env", "early")
    with SimulatorThread(commands.state) as simulator:
        client = await connect(environment)
        await client.patch_twin_reported_properties({"here": True})
        name = IdentityName(simulator.device_id, "early")
        assert simulator.call(lambda running: running.hub.twins.get(name).reported) == {"here": True}
        await client.shutdown()
