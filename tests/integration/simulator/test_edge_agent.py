"""edgeAgent: what it starts, stops and replaces, what it reports, and its own direct methods."""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from edgeclave.simulator import Simulator
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.methods import MethodResult
from edgeclave.simulator.supervisor.agent import Agent
from edgeclave.simulator.supervisor.process import ProcessHost
from tests.fixtures.edge_agent import AGENT, Running
from tests.fixtures.waiting import eventually

IDLE = "import time; print('one', flush=True); print('two', flush=True); time.sleep(600)"
ASKING = """
import os, subprocess, sys, time
ask = '''
import os, requests_unixsocket
from urllib.parse import quote
base = "http+unix://" + quote(os.environ["IOTEDGE_WORKLOADURI"].removeprefix("unix://"), safe="")
print(requests_unixsocket.get(base + "/trust-bundle?api-version=2020-07-07").status_code, flush=True)
'''
exec(ask)
subprocess.run([sys.executable, "-c", ask], start_new_session=True)
time.sleep(600)
"""


@asynccontextmanager
async def running_agent(folder: Path, **programs: str) -> AsyncIterator[Running]:
    folders = {}
    for name, program in programs.items():
        folders[name] = folder / name
        folders[name].mkdir()
        (folders[name] / "main.py").write_text(program)
    async with Simulator.running(folder / "state") as simulator:
        agent = Agent(simulator.state, simulator.hub, ProcessHost(simulator.state, folders), lambda _event: None)
        simulator.workload.program_of = agent.program_of
        agent.start()
        try:
            yield Running(simulator, agent)
        finally:
            await agent.stop()


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_agent(tmp_path, idle=IDLE, failing="raise SystemExit(3)", done="", asking=ASKING) as made:
        yield made


async def test_a_changed_deployment_touches_only_what_changed(device: Running) -> None:
    device.deploy(same={}, changed={}, leaves={}, pauses={})
    await device.runs("same", "changed", "leaves", "pauses")
    before = device.pids()
    device.deploy(same={}, changed={"env": {"A": {"value": "b"}}}, comes={}, pauses={"status": "stopped"})
    await device.runs("comes", "changed")
    await eventually(lambda: device.module("pauses").get("runtimeStatus") == "stopped")
    after = device.pids()
    assert after["same"] == before["same"]
    assert after["changed"] != before["changed"]
    assert set(after) == {"same", "changed", "comes"}
    assert "leaves" not in device.reported["modules"]
    assert device.reported["lastDesiredVersion"] == device.simulator.state.twins.get(AGENT).desired_version


async def test_modules_start_in_startup_order(device: Running) -> None:
    device.deploy(c={"startupOrder": 3}, last={}, a={"startupOrder": 1}, b={"startupOrder": 2})
    await device.runs("a", "b", "c", "last")
    pids = device.pids()
    assert sorted(pids, key=lambda name: pids[name] or 0) == ["a", "b", "c", "last"]


@pytest.mark.parametrize(
    ("image", "policy", "status", "code"),
    [
        pytest.param("failing", "never", "failed", 3, id="never, it failed"),
        pytest.param("failing", "on-failure", "backoff", 3, id="on-failure, it failed"),
        pytest.param("failing", "on-unhealthy", "backoff", 3, id="on-unhealthy, it failed"),
        pytest.param("done", "on-failure", "stopped", 0, id="on-failure, it ended well"),
        pytest.param("done", "always", "backoff", 0, id="always, it ended well"),
    ],
)
async def test_restart_policies(device: Running, image: str, policy: str, status: str, code: int) -> None:
    device.deploy(m={"image": image, "restartPolicy": policy})
    await eventually(lambda: device.module("m").get("runtimeStatus") == status)
    shown = device.module("m")
    assert (shown["exitCode"], shown["restartPolicy"]) == (code, policy)
    assert shown["lastExitTimeUtc"] >= shown["lastStartTimeUtc"] > "2001"
    if status == "backoff":
        await eventually(lambda: device.module("m")["restartCount"] >= 1)
        assert device.module("m")["lastRestartTimeUtc"] > "2001"


async def test_a_bad_deployment_is_reported_and_changes_nothing(device: Running) -> None:
    device.deploy(m={})
    await device.runs("m")
    before = device.pids()
    device.deploy(m={"restartPolicy": "sometimes"})
    await eventually(lambda: device.reported["lastDesiredStatus"]["code"] == 400)
    assert "modules.m" in device.reported["lastDesiredStatus"]["description"]
    assert device.pids() == before


async def test_during_an_outage_deployments_do_not_arrive(device: Running) -> None:
    device.deploy(m={})
    await device.runs("m")
    device.simulator.hub.upstream.set_online(False)
    await device.simulator.state.store.committed()
    device.deploy(m={}, later={})
    await asyncio.sleep(0.3)
    assert "later" not in device.pids()
    device.simulator.hub.upstream.set_online(True)
    await device.runs("m", "later")


async def test_direct_methods(device: Running) -> None:
    device.deploy(m={}, other={})
    await device.runs("m", "other")
    assert await device.call("ping") == MethodResult(200, None)
    before = device.pids()
    assert (await device.call("RestartModule", {"schemaVersion": "1.0", "id": "m"})).status == 200
    await eventually(lambda: device.pids()["m"] != before["m"])
    assert device.pids()["other"] == before["other"]
    log = device.simulator.state.directory / "logs/other.log"
    await eventually(lambda: log.read_text() == "one\ntwo\n")
    asked = {"schemaVersion": "1.0", "items": {"id": "oth.*", "filter": {"tail": 1}}}
    assert (await device.call("GetModuleLogs", asked)).payload == [
        {"id": "other", "payload": "two", "payloadBytes": None}
    ]
    packed = await device.call(
        "GetModuleLogs",
        {**asked, "items": [{"id": "other", "filter": {"regex": "^o"}}], "encoding": "gzip", "contentType": "json"},
    )
    (answer,) = packed.payload
    (line,) = json.loads(gzip.decompress(base64.b64decode(answer["payloadBytes"])))
    assert (line["id"], line["text"], line["loglevel"], line["stream"]) == ("other", "one", 6, "stdout")


@pytest.mark.parametrize(
    ("name", "payload", "status"),
    [
        pytest.param("Dance", None, 400, id="unknown method"),
        pytest.param("RestartModule", None, 400, id="no payload"),
        pytest.param("RestartModule", {"schemaVersion": "9", "id": "m"}, 400, id="unknown schema"),
        pytest.param("RestartModule", {"schemaVersion": "1.0", "id": "nobody"}, 404, id="unknown module"),
        pytest.param("GetModuleLogs", {"schemaVersion": "1.0", "items": {"id": "("}}, 400, id="bad expression"),
        pytest.param("GetModuleLogs", {"schemaVersion": "1.0"}, 400, id="no items"),
    ],
)
async def test_bad_method_calls_are_answered(device: Running, name: str, payload: object, status: int) -> None:
    answer = await device.call(name, payload)
    assert answer.status == status
    assert answer.payload["message"]


async def test_without_an_agent_its_methods_are_not_online(tmp_path: Path) -> None:
    async with Simulator.running(tmp_path / "state") as simulator:
        with pytest.raises(HubError, match="not connected"):
            await simulator.hub.methods.invoke(AGENT, "ping", None)


async def test_a_running_modules_socket_serves_only_its_own_processes(device: Running) -> None:
    device.deploy(m={"image": "asking"})
    await device.runs("m")
    log = device.simulator.state.directory / "logs/m.log"
    await eventually(lambda: log.read_text().count("200\n") == 2)  # itself and a child in another session
    path = device.simulator.environment("m")["IOTEDGE_WORKLOADURI"].removeprefix("unix://")
    stranger = await asyncio.create_subprocess_exec("python3", "-c", _RAW_REQUEST, path, stdout=asyncio.subprocess.PIPE)
    answer, _ = await stranger.communicate()
    assert b" 403 " in answer
    assert b"is not it" in answer


_RAW_REQUEST = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"GET /trust-bundle?api-version=2020-07-07 HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
while data := s.recv(65536):
    sys.stdout.write(data.decode())
"""


async def test_the_eleventh_request_at_once_is_cut_off_without_a_reply(device: Running) -> None:
    environment = device.simulator.environment("by_hand")
    path = environment["IOTEDGE_WORKLOADURI"].removeprefix("unix://")
    generation = environment["IOTEDGE_MODULEGENERATIONID"]
    head = (
        f"POST /modules/by_hand/genid/{generation}/sign?api-version=2020-07-07 HTTP/1.1\r\n"
        "Host: x\r\nContent-Length: 20\r\n\r\n"
    ).encode()
    streams = []
    for _ in range(10):
        streams.append(await asyncio.open_unix_connection(path))
        streams[-1][1].write(head)
    await asyncio.sleep(0.3)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(head)
    with suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(100), 30) == b""
    writer.transport.abort()
    streams[0][1].write(b'{"data": "ZGF0YQ=="}')
    assert b" 200 " in await asyncio.wait_for(streams[0][0].read(1000), 30)
    for _, each in streams:
        each.transport.abort()
    await asyncio.sleep(0.2)
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
        session.get("http://x/trust-bundle?api-version=2022-08-03") as answer,
    ):
        assert answer.status == 200
