"""The main job in the modules' own images by their createOptions: confined, killed, replaced, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeclave.simulator.connection_strings import connection_string
from edgeclave.simulator.runtime_file import read_runtime
from edgeclave.simulator.service_client import ApplyDeployment, carry_out
from tests.containers.device_containers import (
    MODULES,
    READINGS,
    SECONDS_TO_COMPILE,
    SERIES,
    Containers,
    trust_this_device,
)
from tests.e2e.suite import ROOT, Suite, suite
from tests.fixtures import needs
from tests.fixtures.container_engine import docker

LIMITS = "import pathlib as p; print([f.read_text().strip() for f in map(p.Path, {files!r}) if f.exists()][0])"
MEMORY_FILES = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
PIDS_FILES = ["/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"]


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_the_main_job_in_containers_loses_nothing(tmp_path: Path, module_images: dict[str, str]) -> None:
    data, cache = needs.shared("data"), ROOT / ".edgeclave" / "test-e2e"
    limits: dict[str, dict[str, Any]] = {}

    def change(template: dict[str, Any]) -> None:
        """The images as they are built here, and a folder with the series; nothing else."""
        modules = template["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
        for name, module in modules.items():
            module["settings"]["image"] = module_images[name]
            limits[name] = dict(module["settings"]["createOptions"]["HostConfig"])
        modules["sample_analytics"]["settings"]["createOptions"]["HostConfig"]["Binds"] = [f"{data}:/data:ro"]

    source = {"kind": "csv", "path": f"/data/{SERIES}", "speed": 500}
    with suite(tmp_path / "run", cache, source=source, change=change, options=["--containers"]) as running:
        containers = Containers(running)
        try:
            running.until(running.running, "the trusted application to run", SECONDS_TO_COMPILE)
            trust_this_device(running, containers)
            for module in MODULES:
                _is_confined(containers, module, limits[module])
            _enclave_has_a_filter_of_its_own(containers)
            _readings(running, 500)
            _kill_a_container(running, containers)
            _readings(running, 1500)
            _change_one_module(running, containers)
            _kill_the_simulator(running, containers)
            _readings(running, 3000)
            running.device.set_source({**source, "speed": 0})
            running.until(lambda: running.source_state() == "finished", "the whole series to be read", 300)
            for module in MODULES:
                _stops_when_it_is_asked_to(running, containers, module)
            sealed = running.device.counters()["sealed"]
            reading = running.read(until_idle=10)
            running.down()
            assert not containers.found()
            assert not containers.networks()
        finally:
            running.down()
            containers.remove_volumes()
    assert reading.exit_code == 0, reading.errors
    assert reading.kinds["result"] == sealed
    assert not reading.kinds.keys() & {"refused", "gap", "held", "rollback", "fork", "reset", "equivocation"}
    assert sum(summary["count"] for summary in reading.payloads("summary")) == READINGS


def _readings(running: Suite, count: int) -> None:
    running.until(lambda: running.device.counters().get("readings", 0) >= count, f"{count} readings", 180)


def _is_confined(containers: Containers, module: str, wanted: dict[str, Any]) -> None:
    """What the kernel says, not what was asked for."""
    pid = containers.state(module)["Pid"]
    status = _status(pid)
    assert status["Uid"].split() == status["Gid"].split() == ["10001"] * 4, module
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, (module, kind)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), module
    (root,) = [line for line in Path(f"/proc/{pid}/mounts").read_text().splitlines() if line.split()[1] == "/"]
    assert root.split()[3].split(",")[0] == "ro", module
    memory, pids = (_inside(containers, module, LIMITS.format(files=files)) for files in (MEMORY_FILES, PIDS_FILES))
    assert (int(memory), int(pids)) == (wanted["Memory"], wanted["PidsLimit"]), module
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
    assert "proxy" not in environment.lower(), module
    assert "EDGECLAVE_" not in environment, module


def _enclave_has_a_filter_of_its_own(containers: Containers) -> None:
    runner = psutil.Process(containers.state("ta_runner")["Pid"])
    enclaves = [each for each in runner.children(recursive=True) if "edgeclave.enclave" in " ".join(each.cmdline())]
    assert enclaves
    for enclave in enclaves:
        assert int(_status(enclave.pid)["Seccomp_filters"]) > int(_status(runner.pid)["Seccomp_filters"])


def _kill_a_container(running: Suite, containers: Containers) -> None:
    before = containers.ids()
    docker("kill", containers.name("ta_runner"))
    running.until(lambda: containers.reported("ta_runner")["restartCount"] == 1, "a restart")
    running.until(containers.all_run, "all containers to run again")
    assert containers.ids() == before  # started again, not made anew
    running.until(running.running, "the trusted application to run again")


def _change_one_module(running: Suite, containers: Containers) -> None:
    """A second deployment, by the unmodified azure-iot-hub client."""
    state = running.prepared.simulator_state
    (manifest,) = (state / "config").glob("*.json")
    content = json.loads(manifest.read_text())["modulesContent"]
    broker = content["$edgeAgent"]["properties.desired"]["modules"]["enclave_broker"]
    broker["env"] = {"CHANGED": {"value": "yes"}}
    content["sample_analytics"]["properties.desired"]["source"]["speed"] = 500
    runtime = read_runtime(state)
    assert runtime is not None
    order = ApplyDeployment("edge01", content)
    service = connection_string(runtime.settings, "service")
    before = containers.ids()
    asyncio.run(carry_out(order, connection_string=service, ca_file=runtime.ca_file))
    running.until(
        lambda: "env" in containers.reported("enclave_broker") and containers.reported("enclave_broker")["env"], "it"
    )
    running.until(containers.all_run, "all containers to run")
    after = containers.ids()
    assert {module for module in MODULES if after[module] != before[module]} == {"enclave_broker"}


def _kill_the_simulator(running: Suite, containers: Containers) -> None:
    assert running.simulator is not None
    running.simulator.kill()
    running.simulator.wait()
    left = set(containers.ids().values())
    assert containers.state("ta_runner")["Running"]
    running.up()
    running.until(lambda: len(containers.found() - left) == len(MODULES), "new containers")
    running.until(containers.all_run, "all containers to run")
    assert not left & containers.found()


def _stops_when_it_is_asked_to(running: Suite, containers: Containers, module: str) -> None:
    restarts = containers.reported(module)["restartCount"]
    began = time.monotonic()
    docker("kill", "--signal", "TERM", containers.name(module))
    while containers.state(module)["Running"]:
        assert time.monotonic() - began < 2, f"{module} did not stop in 2 s"
    assert containers.state(module)["ExitCode"] == 0
    running.until(lambda: containers.reported(module)["restartCount"] > restarts, f"{module} to be started again")
    assert containers.reported(module)["exitCode"] == 0
    running.until(containers.all_run, "all containers to run")


def _inside(containers: Containers, module: str, program: str) -> str:
    return docker("exec", containers.name(module), "python3", "-c", program)


def _status(pid: int) -> dict[str, str]:
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}
