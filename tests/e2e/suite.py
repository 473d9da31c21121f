"""The whole suite on the simulator, driven by the commands of the README, for tests that break it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from edgeclave.demo.device import Device
from edgeclave.demo.prepare import Prepared, prepare

ROOT = Path(__file__).parents[2]
SECONDS_TO_START = 90.0


def edgeclave(
    *arguments: str, environment: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeclave", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
        timeout=timeout,
    )


@dataclass
class Reading:
    """What one run of `edgeclave consume --json` said."""

    findings: list[dict[str, Any]]
    exit_code: int
    errors: str

    @property
    def kinds(self) -> Counter[str]:
        return Counter(str(finding["kind"]) for finding in self.findings)

    def payloads(self, output: str) -> list[dict[str, Any]]:
        return [f["payload"] for f in self.findings if f["kind"] == "result" and f["output"] == output]


@dataclass
class Suite:
    """One simulated device with the three modules, a reader, and ways to kill each of them."""

    prepared: Prepared
    template: Path
    options: Sequence[str] = ()
    findings: list[dict[str, Any]] = field(default_factory=list)
    simulator: subprocess.Popen[bytes] | None = None
    device: Device = field(init=False)

    def __post_init__(self) -> None:
        self.device = Device(self.prepared.simulator_state)

    @property
    def data(self) -> Path:
        return self.prepared.simulator_state / "data"

    def up(self) -> None:
        arguments = ["sim", "up", str(self.template), "--state", str(self.prepared.simulator_state), *self.options]
        with (self.prepared.folder / "simulator.log").open("ab") as log:
            self.simulator = subprocess.Popen(
                [sys.executable, "-m", "edgeclave", *arguments],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=self.prepared.environment(),
                start_new_session=True,
            )
        self.until(self.device.connect, "the simulator to answer")

    def down(self) -> None:
        if self.simulator is not None and self.simulator.poll() is None:
            self.simulator.send_signal(signal.SIGTERM)
            assert self.simulator.wait(20) == 0

    def processes(self, *words: str) -> list[psutil.Process]:
        """Processes below this simulator whose command line holds all words."""
        assert self.simulator is not None
        found = []
        for process in psutil.Process(self.simulator.pid).children(recursive=True):
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if all(word in line for word in words):
                found.append(process)
        return found

    def kill(self, *words: str) -> None:
        victims = self.processes(*words)
        assert victims, f"no process with {words}"
        for victim in victims:
            victim.kill()

    def kill_simulator(self) -> None:
        assert self.simulator is not None
        children = psutil.Process(self.simulator.pid).children(recursive=True)
        self.simulator.kill()
        self.simulator.wait()
        _, alive = psutil.wait_procs(children, timeout=15)
        assert not alive, f"orphans stayed: {alive}"

    def running(self, name: str = "anomaly") -> bool:
        apps = self.device.reported("ta_runner").get("trustedApps") or {}
        return bool((apps.get(name) or {}).get("state") == "running")

    def source_state(self) -> str:
        return str((self.device.reported("sample_analytics").get("source") or {}).get("state"))

    def read(self, *, until_idle: float = 3.0, options: Sequence[str] = ()) -> Reading:
        """Everything that has arrived since the last read, by the reader that keeps its state between reads."""
        connection = self.device.connection("eventhub")
        assert connection is not None
        files = ["--key", str(self.prepared.reader_key), "--policy", str(self.prepared.policy)]
        state = ["--ca", connection["caFile"], "--state", str(self.prepared.reader_state)]
        done = edgeclave(
            *["consume", "--json", "--until-idle", str(until_idle), *files, *state, *options],
            environment={**os.environ, "EDGECLAVE_EVENTHUB": connection["connectionString"]},
        )
        assert "Traceback" not in done.stderr, done.stderr
        findings = [json.loads(line) for line in done.stdout.splitlines()]
        self.findings += findings
        return Reading(findings, done.returncode, done.stderr)

    @staticmethod
    def until(true: Callable[[], object], what: str, seconds: float = SECONDS_TO_START) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
            time.sleep(0.2)


@contextmanager
def suite(
    folder: Path,
    cache: Path,
    *,
    source: dict[str, Any],
    change: Callable[[dict[str, Any]], None] = lambda template: None,
    options: Sequence[str] = (),
) -> Iterator[Suite]:
    """A fresh device. Keys, the signed package, the emulator and its compiled code come from `cache`.

    Args:
        source: of sample_analytics.
        change: made to the deployment template.
        options: of `edgeclave sim up`.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:  # for whoever runs tests beside this one
        fcntl.flock(lock, fcntl.LOCK_EX)
        shared = prepare(cache, ROOT, lambda line: None)
        own = Path(shutil.copytree(shared.folder, folder, ignore=shutil.ignore_patterns("simulator.log", "*.db*")))
    prepared = Prepared(
        folder=own,
        template=shared.template,
        keys=own / "keys",
        variables=own / ".env",
        simulator_state=own / "simulator",
        policy=own / "policy.toml",
        reader_state=own / "reader",
    )
    template = json.loads(shared.template.read_text())
    sample = template["modulesContent"]["sample_analytics"]["properties.desired"]
    sample["source"] = source
    change(template)
    if source["kind"] == "input":
        layer = json.loads((ROOT / "deployments" / "simulated-sensor.template.json").read_text())["content"]
        route = layer["modulesContent"]["$edgeHub"]["properties.desired.routes.sensor"]
        template["modulesContent"]["$edgeHub"]["properties.desired"]["routes"]["sensor"] = route
    # `${MODULES.x}` images are found next to the template.
    path = ROOT / f".edgeclave-test-{os.getpid()}.template.json"
    path.write_text(json.dumps(template))
    running = Suite(prepared, path, options)
    try:
        running.up()
        yield running
        running.down()
    finally:
        path.unlink()
        if running.simulator is not None and running.simulator.poll() is None:
            running.simulator.kill()
