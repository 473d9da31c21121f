"""edgeAgent with containers on a real engine: what it makes, restarts, replaces, reports, refuses and leaves alone."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeclave.simulator import Simulator
from edgeclave.simulator.supervisor.agent import Agent
from edgeclave.simulator.supervisor.containers.engine import Engine
from edgeclave.simulator.supervisor.containers.host import SIMULATOR_LABEL, ContainerHost
from edgeclave.simulator.workload.sockets import runtime_folder
from tests.fixtures.container_engine import docker
from tests.fixtures.docker_registry import PASSWORD, USER, with_password_in_the_clear
from tests.fixtures.edge_agent import Running
from tests.fixtures.waiting import eventually

SECONDS = 30  # for the engine, on a busy machine
IDLE = "print('one'); print('two'); time.sleep(600)"
ASK = """
import socket, struct
def ask(path):
    s = socket.socket(socket.AF_UNIX); s.connect(path)
    s.sendall(b"GET /trust-bundle?api-version=2020-07-07 HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    return s.makefile().readline().split()[1]
"""


def python(program: str, **host: Any) -> dict[str, Any]:
    """createOptions of a container that runs a program, and stops when it is asked to."""
    prelude = "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
    return {"Entrypoint": ["python3", "-u", "-c", prelude + program], "User": "10001:10001", "HostConfig": host}


@asynccontextmanager
async def running_agent(state: Path) -> AsyncIterator[Running]:
    engine = await Engine.connect()
    async with (
        Simulator.running(state) as simulator,
        ContainerHost.running(engine, simulator.state, {}, lambda *_: None) as host,
    ):
        assert await simulator.listen_as_edge_hub(host.gateway_address) == ""
        agent = Agent(simulator.state, simulator.hub, host, lambda _event: None)
        simulator.workload.program_of = agent.program_of
        agent.start()
        try:
            yield Running(simulator, agent)
        finally:
            await agent.stop()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory of which nothing is left in the engine afterwards."""
    directory = tmp_path / "state"
    yield directory
    for volume in ours(directory, "volume"):
        docker("volume", "rm", volume)


@pytest.fixture
async def device(engine: None, base_image: str, state: Path) -> AsyncIterator[Running]:
    async with running_agent(state) as made:
        yield made


def ours(state: Path, kind: str = "container") -> list[str]:
    """Ids or names of what the engine has of a simulator."""
    everything = ["--all"] if kind == "container" else []
    label = f"label={SIMULATOR_LABEL}={runtime_folder(state).name}"
    return docker(kind, "ls", "--quiet", *everything, "--filter", label).split()


def name_of(state: Path, module: str) -> str:
    return f"{runtime_folder(state).name}-{module}"


def log(device: Running, module: str) -> str:
    path = device.simulator.state.directory / f"logs/{module}.log"
    return path.read_text() if path.exists() else ""


async def test_a_changed_deployment_touches_only_what_changed(device: Running, base_image: str, state: Path) -> None:
    idle = {"image": base_image, "createOptions": python(IDLE)}
    device.deploy(same={**idle}, changed={**idle}, leaves={**idle})
    await device.runs("same", "changed", "leaves", seconds=SECONDS)
    before = device.pids()
    device.deploy(same={**idle}, changed={**idle, "env": {"A": {"value": "b"}}})
    await eventually(lambda: set(device.pids()) == {"same", "changed"}, SECONDS)
    await device.runs("same", "changed", seconds=SECONDS)
    after = device.pids()
    assert after["same"] == before["same"]
    assert after["changed"] != before["changed"]
    assert len(ours(state)) == 2
    assert device.reported["runtime"]["type"] == "docker"


async def test_a_module_gets_what_a_device_gives_it_and_nothing_else(device: Running, base_image: str) -> None:
    program = f"""
import json, socket, ssl
{ASK}
kept = {{name: os.environ[name] for name in os.environ if name not in ("PATH", "LANG", "HOME", "HOSTNAME", "LC_CTYPE")}}
hub = socket.create_connection((os.environ["IOTEDGE_GATEWAYHOSTNAME"], 8883))
https = socket.create_connection((os.environ["IOTEDGE_GATEWAYHOSTNAME"], 443))
print(json.dumps({{
    "environment": kept,
    "workload": ask(os.environ["IOTEDGE_WORKLOADURI"].removeprefix("unix://")),
    "neighbour": socket.gethostbyname("neighbour"),
    "read only": not os.access("/", os.W_OK),
    "file": open("/state/file", "a").write("x"),
}}))
time.sleep(600)
"""
    options = {**python(program), "Env": ["A=options", "B=options"]}
    options["HostConfig"] = {
        "ReadonlyRootfs": True,
        "Mounts": [{"Type": "tmpfs", "Target": "/state", "TmpfsOptions": {"Mode": 0o777}}],
    }
    device.deploy(
        neighbour={"image": base_image, "createOptions": python(IDLE), "startupOrder": 1},
        m={"image": base_image, "createOptions": options, "env": {"A": {"value": "deployment"}}, "startupOrder": 2},
    )
    await eventually(lambda: log(device, "m").endswith("}\n"), SECONDS)
    seen = json.loads(log(device, "m"))
    settings = device.simulator.settings
    assert seen["environment"] == {
        "A": "deployment",
        "B": "options",
        "IOTEDGE_WORKLOADURI": "unix:///var/run/iotedge/workload.sock",
        "IOTEDGE_IOTHUBHOSTNAME": settings.hub_host,
        "IOTEDGE_GATEWAYHOSTNAME": settings.gateway,
        "IOTEDGE_DEVICEID": "edge01",
        "IOTEDGE_MODULEID": "m",
        "IOTEDGE_MODULEGENERATIONID": device.simulator.environment("m")["IOTEDGE_MODULEGENERATIONID"],
        "IOTEDGE_APIVERSION": "2020-07-07",
        "IOTEDGE_AUTHSCHEME": "sasToken",
    }
    assert seen["workload"] == "200"
    assert seen["read only"]


async def test_a_modules_socket_serves_its_own_container_only(device: Running, base_image: str) -> None:
    device.deploy(owner={"image": base_image, "createOptions": python(IDLE)})
    await device.runs("owner", seconds=SECONDS)
    path = device.simulator.environment("owner")["IOTEDGE_WORKLOADURI"].removeprefix("unix://")
    inside = f"{ASK}\nprint(ask('/var/run/iotedge/workload.sock'))"
    name = name_of(device.simulator.state.directory, "owner")
    assert await asyncio.to_thread(docker, "exec", name, "python3", "-c", inside) == "200"
    outside = await asyncio.create_subprocess_exec(
        "python3", "-c", f"{ASK}\nprint(ask({path!r}))", stdout=asyncio.subprocess.PIPE
    )
    assert (await outside.communicate())[0] == b"403\n"
    thief = python(f"{ASK}\nprint(ask('/stolen.sock')); time.sleep(600)", Binds=[f"{path}:/stolen.sock"])
    device.deploy(
        owner={"image": base_image, "createOptions": python(IDLE)}, thief={"image": base_image, "createOptions": thief}
    )
    await eventually(lambda: log(device, "thief"), SECONDS)
    assert log(device, "thief") == "403\n"


@pytest.mark.parametrize(
    ("program", "policy", "status", "code", "says"),
    [
        pytest.param("sys.exit(3)", "never", "failed", 3, "exited with code 3", id="never, it failed"),
        pytest.param("print('oh'); sys.exit(3)", "on-failure", "backoff", 3, "code 3: oh", id="on-failure, it failed"),
        pytest.param("pass", "on-failure", "stopped", 0, "exited with code 0", id="on-failure, it ended well"),
        pytest.param("pass", "always", "backoff", 0, "starting again", id="always, it ended well"),
        pytest.param("bytearray(256 << 20)", "never", "failed", 137, "more memory than HostConfig.Memory", id="memory"),
    ],
)
async def test_restart_policies(
    device: Running, base_image: str, program: str, policy: str, status: str, code: int, says: str
) -> None:
    options = python(program, Memory=64 << 20, MemorySwap=64 << 20)
    device.deploy(m={"image": base_image, "createOptions": options, "restartPolicy": policy})
    await eventually(lambda: device.module("m").get("runtimeStatus") == status, SECONDS)
    shown = device.module("m")
    assert (shown["exitCode"], shown["restartPolicy"]) == (code, policy)
    assert says in shown["statusDescription"]
    assert shown["lastExitTimeUtc"] >= shown["lastStartTimeUtc"] > "2001"


async def test_a_killed_module_comes_back_in_the_same_container(device: Running, base_image: str, state: Path) -> None:
    program = "open('/tmp/starts', 'a').write('x'); print(len(open('/tmp/starts').read())); time.sleep(600)"
    device.deploy(m={"image": base_image, "createOptions": python(program)})
    await device.runs("m", seconds=SECONDS)
    await eventually(lambda: log(device, "m") == "1\n", SECONDS)
    pid = device.pids()["m"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: device.module("m").get("restartCount") == 1, SECONDS)
    await device.runs("m", seconds=SECONDS)
    await eventually(lambda: log(device, "m") == "1\n2\n", SECONDS)
    assert (await device.call("RestartModule", {"schemaVersion": "1.0", "id": "m"})).status == 200
    await eventually(lambda: log(device, "m") == "1\n2\n3\n", SECONDS)
    asked = await device.call("GetModuleLogs", {"schemaVersion": "1.0", "items": {"id": "m", "filter": {"tail": 1}}})
    assert asked.payload == [{"id": "m", "payload": "3", "payloadBytes": None}]
    assert len(ours(state)) == 1


async def test_a_container_that_someone_removed_is_made_again(device: Running, base_image: str, state: Path) -> None:
    device.deploy(m={"image": base_image, "createOptions": python(IDLE)})
    await device.runs("m", seconds=SECONDS)
    before = ours(state)
    await asyncio.to_thread(docker, "rm", "--force", *before)
    await eventually(lambda: device.module("m").get("restartCount") == 1, SECONDS)
    await device.runs("m", seconds=SECONDS)
    assert ours(state) != before


async def test_output_that_goes_elsewhere_is_not_missed(device: Running, base_image: str) -> None:
    options = python("print('x'); time.sleep(1); sys.exit(4)", LogConfig={"Type": "none"})
    device.deploy(m={"image": base_image, "createOptions": options, "restartPolicy": "never"})
    await eventually(lambda: device.module("m").get("exitCode") == 4, SECONDS)
    assert "keeps the output elsewhere" in log(device, "m")


_listener = socket.create_server(("127.0.0.1", 0))
_taken = {"1/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(_listener.getsockname()[1])}]}
NOT_STARTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "registry-down": ({"image": "127.0.0.1:9/no/such:1"}, "backoff", "registry's address"),
    "no-image-name": ({"image": "no such name"}, "backoff", "check the image's name"),
    "not-to-be-pulled": (
        {"image": "edgeclave-test/nothing:1", "imagePullPolicy": "never"},
        "failed",
        "imagePullPolicy is never",
    ),
    "no-such-folder": (
        {"createOptions": python(IDLE, Mounts=[{"Type": "bind", "Source": "/no/such/folder", "Target": "/x"}])},
        "backoff",
        "check the paths that its createOptions mount",
    ),
    "no-such-device": (
        {"createOptions": python(IDLE, Devices=[{"PathOnHost": "/dev/no-tee", "PathInContainer": "/dev/t"}])},
        "backoff",
        "see Devices in createOptions",
    ),
    "port-taken": (
        {"createOptions": {**python(IDLE, PortBindings=_taken), "ExposedPorts": {"1/tcp": {}}}},
        "backoff",
        "change PortBindings",
    ),
    "no-such-program": ({"createOptions": {"Entrypoint": ["/no/such/program"]}}, "backoff", "no such file"),
    "little-memory": ({"createOptions": python(IDLE, Memory=1)}, "backoff", "more Memory in createOptions"),
    "typo": ({"createOptions": python(IDLE, CapDrp=["ALL"])}, "failed", "did you mean 'CapDrop'"),
    "two-networks": ({"createOptions": python(IDLE, NetworkMode="host")}, "failed", '"host": {}'),
}


async def test_what_cannot_start_is_told_by_name_while_the_rest_runs(
    device: Running, base_image: str, state: Path
) -> None:
    usual = {"image": base_image, "createOptions": python(IDLE)}
    wrong = {name: {**usual, "startupOrder": 1, **module} for name, (module, _, _) in NOT_STARTED.items()}
    device.deploy(**wrong, right={**usual, "startupOrder": 2})
    await device.runs("right", seconds=2 * SECONDS)
    for name, (_, status, says) in NOT_STARTED.items():
        shown = device.module(name)
        assert says in shown["statusDescription"], name
        assert shown["runtimeStatus"] == status, name
        assert shown["lastStartTimeUtc"].startswith("0001"), name
        assert log(device, name), name
    running = [each for each in ours(state) if docker("inspect", "--format", "{{.State.Running}}", each) == "true"]
    assert len(running) == 1


async def test_an_image_of_a_private_registry_is_pulled_with_the_credentials_of_the_deployment(
    device: Running, base_image: str, tmp_path: Path
) -> None:
    with with_password_in_the_clear(tmp_path / "private").running() as registry:
        image = f"{registry.host}/plant/idle:1"
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": login}}}))
        await asyncio.to_thread(docker, "tag", base_image, image)
        await asyncio.to_thread(docker, "--config", str(tmp_path), "push", "--quiet", image)
        await asyncio.to_thread(docker, "image", "rm", image)
        module = {"image": image, "createOptions": python(IDLE)}
        device.deploy(m={**module})
        await eventually(lambda: device.module("m").get("runtimeStatus") == "backoff", SECONDS)
        assert "registryCredentials" in device.module("m")["statusDescription"]

        device.registries = {"plant": {"address": registry.host, "username": USER, "password": PASSWORD}}
        device.deploy(m={**module, "env": {"TRY": {"value": "again"}}})
        await device.runs("m", seconds=SECONDS)
        assert PASSWORD not in json.dumps(device.reported)
        assert PASSWORD not in log(device, "m")
        device.deploy()
        await eventually(lambda: not device.pids(), SECONDS)
        await asyncio.to_thread(docker, "image", "rm", image)


async def test_an_image_for_another_machine_is_told(device: Running, tmp_path: Path) -> None:
    image = f"edgeclave-test/elsewhere:{uuid.uuid4()}"
    (tmp_path / "program").write_bytes(b"\x7fELF" + bytes(60))
    (tmp_path / "program").chmod(0o755)
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY program /program\nENTRYPOINT ["/program"]\n')
    await asyncio.to_thread(docker, "build", "--platform", "linux/arm64", "--tag", image, str(tmp_path))
    try:
        device.deploy(m={"image": image})
        await eventually(lambda: device.module("m").get("runtimeStatus") == "backoff", SECONDS)
        assert "its image is for arm64, and this machine is amd64" in device.module("m")["statusDescription"]
        device.deploy()
        await eventually(lambda: not device.pids(), SECONDS)
    finally:
        docker("image", "rm", image)


async def test_a_name_that_another_container_has_is_not_taken_from_it(
    device: Running, base_image: str, state: Path
) -> None:
    other = docker("create", "--name", name_of(state, "m"), base_image)
    try:
        device.deploy(m={"image": base_image, "createOptions": python(IDLE)})
        await eventually(lambda: device.module("m").get("runtimeStatus") == "backoff", SECONDS)
        assert "remove that container" in device.module("m")["statusDescription"]
    finally:
        docker("rm", other)
    await device.runs("m", seconds=SECONDS)


async def test_what_a_killed_simulator_left_is_removed_and_nothing_else(
    engine: None, base_image: str, state: Path
) -> None:
    stranger = docker("create", "--name", f"edgeclave-test-{uuid.uuid4()}", base_image)
    keeping = python("open('/state/file', 'a').write('x'); print(open('/state/file').read()); time.sleep(600)")
    keeping["User"] = "0:0"
    keeping["HostConfig"] = {"Binds": ["kept:/state"]}
    try:
        async with running_agent(state) as device:
            device.deploy(m={"image": base_image, "createOptions": keeping})
            await eventually(lambda: log(device, "m") == "x\n", SECONDS)
            label = f"{SIMULATOR_LABEL}={runtime_folder(state).name}"
        assert ours(state) == ours(state, "network") == []
        (volume,) = ours(state, "volume")
        left = docker("run", "--detach", "--label", label, "--entrypoint", "sleep", base_image, "600")
        async with running_agent(state) as device:
            assert left[:12] not in ours(state)
            await eventually(lambda: log(device, "m") == "x\nxx\n", SECONDS)  # the deployment and the volume are there
        for path in state.glob("state.sqlite*"):
            path.unlink()
        async with running_agent(state):  # the simulator's state was started over
            assert ours(state, "volume") == []
        assert volume
        assert docker("inspect", "--format", "{{.Id}}", stranger) == stranger
    finally:
        docker("rm", stranger)


async def test_files_that_a_twin_names_are_brought_to_the_module(
    device: Running, base_image: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.ta", tmp_path / "second.ta"
    first.write_text("first")
    second.write_text("second")
    name = device.simulator.state.module("m").name
    program = (
        f"print([open(p).read() for p in ({str(first)!r}, {str(second)!r}) if os.path.exists(p)]); time.sleep(600)"
    )

    def twin(package: str) -> None:
        device.simulator.state.twins.update(name, desired={"trustedApps": {"a": {"package": package}}})

    twin(str(first))
    device.deploy(m={"image": base_image, "createOptions": python(program)})
    await eventually(lambda: log(device, "m") == "['first']\n", SECONDS)
    before = device.pids()["m"]
    twin("registry.example/a@sha256:00")  # for ta_runner to fetch
    await eventually(lambda: log(device, "m") == "['first']\n[]\n", SECONDS)
    assert device.pids()["m"] != before
    twin(second.as_uri())
    await eventually(lambda: log(device, "m") == "['first']\n[]\n['second']\n", SECONDS)
