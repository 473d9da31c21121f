"""A solution with one small module, an edge device that runs it, and `edgeclave deploy` against its hub."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.protocol.models import Twin  # type: ignore[import-untyped]

from edgeclave.cli.main import run
from edgeclave.cloud.deployment.watch import Pace
from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.supervisor.agent import Agent
from edgeclave.simulator.supervisor.process import ProcessHost

WORKER = "import os, time\nprint(os.environ['GREETING'], flush=True)\ntime.sleep(600)\n"  # without it: exit code 1


@dataclass
class Solution:
    """A folder with `modules/worker`, whose version stands in .env, and templates."""

    folder: Path
    modules: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        worker = self.folder / "modules/worker"
        worker.mkdir(parents=True)
        (worker / "main.py").write_text(WORKER)
        tag = {"version": "${WORKER_VERSION}", "platforms": {"amd64": "./Dockerfile.amd64"}}
        (worker / "module.json").write_text(json.dumps({"image": {"repository": "registry/worker", "tag": tag}}))
        self.version("1.0")

    def version(self, version: str) -> None:
        (self.folder / ".env").write_text(f"WORKER_VERSION={version}\nWORKER_PASSWORD=hunter2{version}\n")

    def template(self, name: str = "deployment.template.json", *, rate: int = 1, **module: Any) -> Path:
        """A whole deployment of `worker`, with these members changed."""
        worker = {
            "type": "docker",
            "status": "running",
            "restartPolicy": "always",
            "env": {"GREETING": {"value": "hello"}, "PASSWORD": {"value": "$WORKER_PASSWORD"}},
            "settings": {"image": "${MODULES.worker}", "createOptions": {"HostConfig": {"Memory": 1 << 27}}},
            **module,
        }
        system = {
            "edgeAgent": {"type": "docker", "settings": {"image": "agent:1.5"}},
            "edgeHub": {
                "type": "docker",
                "status": "running",
                "restartPolicy": "always",
                "settings": {"image": "hub:1.5"},
            },
        }
        agent = {"schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "systemModules": system}
        hub = {"schemaVersion": "1.2", "routes": {"up": "FROM /messages/* INTO $upstream"}}
        return self.write(
            name,
            {
                "$edgeAgent": {"properties.desired": {**agent, "modules": {"worker": worker}}},
                "$edgeHub": {"properties.desired": hub},
                "worker": {"properties.desired": {"rate": rate}},
            },
        )

    def write(self, name: str, content: dict[str, Any], *, layer: dict[str, Any] | None = None) -> Path:
        """A template; with what else stands in its file, one of a layer."""
        path = self.folder / name
        body: dict[str, Any] = {"modulesContent": content}
        body = body if layer is None else {**layer, "content": body}
        path.write_text(json.dumps({"$schema-template": "4.0.0", **body}))
        return path


@dataclass
class Done:
    """One run of the command."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def ended(self) -> dict[str, Any]:
        assert self.events[-1]["event"] == "ended"
        return self.events[-1]

    @property
    def wrong(self) -> dict[str, str]:
        return {f"{each['device']} {each['part']}": each["what"] for each in self.ended["wrong"]}


@pytest.fixture
def solution(tmp_path: Path) -> Solution:
    return Solution(tmp_path / "solution")


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorThread]:
    """A hub with one edge device, on which nothing runs."""
    with SimulatorThread(tmp_path / "sim") as running:
        yield running


@pytest.fixture
def device(simulator: SimulatorThread, solution: Solution) -> Iterator[SimulatorThread]:
    """The same with an edgeAgent, which has the images of versions 1.0 and 2.0."""
    worker = solution.folder / "modules/worker"
    folders = {f"registry/worker:{version}-amd64": worker for version in ("1.0", "2.0")}
    agents: list[Agent] = []

    def start(running: Any) -> None:
        agent = Agent(running.state, running.hub, ProcessHost(running.state, folders), lambda _event: None)
        running.workload.program_of = agent.program_of
        agent.start()
        agents.append(agent)

    simulator.call(start)
    yield simulator
    stopped: Future[None] = Future()

    def stop(_running: Any) -> None:
        task = asyncio.get_running_loop().create_task(agents[0].stop())
        task.add_done_callback(lambda _task: stopped.set_result(None))

    simulator.call(stop)
    stopped.result(20)


Deploy = Callable[..., Done]


@pytest.fixture
def deploy(
    simulator: SimulatorThread,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Deploy:
    """Runs `edgeclave deploy` on this hub with these arguments, impatiently."""
    monkeypatch.setattr("edgeclave.cli.deploy.Pace", lambda seconds: Pace(seconds, 1.0, 0.2))
    monkeypatch.setattr(sys, "stdin", (tmp_path / "stdin").open("w+"))
    secret = tmp_path / "hub.txt"
    secret.write_text(simulator.connection_string("service") + "\n")

    def deployed(*arguments: object) -> Done:
        capfd.readouterr()
        code = run(["deploy", "--hub", f"@{secret}", "--ca", simulator.ca_file, *map(str, arguments)])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        key = secret.read_text().strip().rpartition("SharedAccessKey=")[2]
        assert key not in out + err
        assert "hunter2" not in out + err
        return Done(code, out, err)

    return deployed


@pytest.fixture
def registry(simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch) -> IoTHubRegistryManager:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", simulator.ca_file)
    return IoTHubRegistryManager.from_connection_string(simulator.connection_string("service"))


@pytest.fixture
def configurations(simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch) -> IoTHubConfigurationManager:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", simulator.ca_file)
    return IoTHubConfigurationManager.from_connection_string(simulator.connection_string("service"))


@pytest.fixture
def tag(registry: IoTHubRegistryManager) -> Callable[..., None]:
    def tagged(device_id: str = "edge01", **tags: Any) -> None:
        registry.update_twin(device_id, Twin(tags=tags), "*")

    return tagged
