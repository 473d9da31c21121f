"""`edgeclave sim ...` as a person uses it, on two modules written only against the SDK's documentation."""

import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

SOLUTION = Path(__file__).parents[2] / "fixtures" / "temperature_solution"


class Commands:
    def __init__(self, state: Path, solution: Path = SOLUTION) -> None:
        self.state = state
        self.solution = solution
        self.up: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        self.up = subprocess.Popen(
            self._line("up", str(self.solution / "deployment.template.json"), *options),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.until(lambda: self.status()["running"])

    def stop(self) -> None:
        if self.up is not None:
            self.up.terminate()
            self.up.wait(20)
            self.up = None

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self._line(*arguments), input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in done.stderr
        return done

    def read(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def status(self) -> Any:
        return json.loads(self.run("status", "--json").stdout)

    def module(self, name: str) -> dict[str, Any]:
        found = [each for each in self.status().get("modules", []) if each["moduleId"] == name]
        return found[0] if found else {}

    def reported(self, name: str) -> dict[str, Any]:
        reported: dict[str, Any] = self.read("twin", "get", name)["properties"]["reported"]
        return reported

    @staticmethod
    def until(true: Callable[[], object], seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "not in time"
            time.sleep(0.3)

    def _line(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "edgeclave", "sim", *arguments, "--state", str(self.state)]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    made = Commands(tmp_path_factory.mktemp("commands") / "state")
    made.start()
    made.until(lambda: made.module("temperature_filter").get("connected"))
    yield made
    made.stop()


@pytest.mark.timeout(180)
def test_monitor_shows_decoded_messages_of_the_deployed_modules(commands: Commands) -> None:
    done = commands.run("monitor", "--from", "earliest", "--count", "3", "--for", "40", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["module"] for event in events] == ["temperature_filter"] * 3, done.stderr
    assert events[0]["body"]["machine"]["temperature"] == 26.0
    assert events[0]["properties"] == {"MessageType": "Alert"}
    shown = commands.run("monitor", "--from", "earliest", "--count", "1", "--for", "20").stdout
    came = datetime.fromisoformat(events[0]["enqueued"]).astimezone().strftime("%H:%M:%S")
    assert shown.startswith(f"{came} edge01/temperature_filter")


def test_status_names_every_module(commands: Commands) -> None:
    commands.until(lambda: commands.module("temperature_sensor").get("connected"))
    status = commands.status()
    assert (status["online"], status["deviceId"]) == (True, "edge01")
    sensor = commands.module("temperature_sensor")
    assert (sensor["status"], sensor["restartCount"]) == ("running", 0)
    for system in ("$edgeAgent", "$edgeHub"):
        module = commands.module(system)
        assert (module["status"], module["connected"]) == ("running", True)
    shown = commands.run("status").stdout
    assert "upstream online; messages: " in shown
    assert "temperature_sensor" in shown


def test_twins_are_read_and_set(commands: Commands) -> None:
    shown = json.loads(commands.run("twin", "set", "temperature_filter", '{"threshold": 24}').stdout)
    assert shown["desired"]["threshold"] == 24
    commands.until(lambda: commands.reported("temperature_filter").get("threshold") == 24)
    tags = json.loads(commands.run("twin", "set", "edge01", '{"site": "a"}', "--tags").stdout)
    assert tags["tags"] == {"site": "a"}
    refused = commands.run("twin", "set", "temperature_filter", "{threshold")
    assert (refused.returncode, "bad-json" in refused.stderr) == (1, True)
    assert "refused-by-hub" in commands.run("twin", "get", "nobody").stderr


def test_methods_are_called(commands: Commands) -> None:
    answer = commands.read("method", "temperature_sensor", "reset", "--connect-timeout", "20")
    assert answer == {"status": 200, "payload": {"temperature": 20.0}}
    assert "refused-by-hub" in commands.run("method", "nobody", "reset").stderr


def test_send_reaches_an_input(commands: Commands) -> None:
    body = json.dumps({"machine": {"temperature": 5000}})
    assert commands.run("send", "temperature_filter", "input1", "-", "-p", "a=b", stdin=body).returncode == 0

    def temperatures() -> list[float]:
        lines = commands.run("monitor", "--from", "earliest", "--for", "4", "--json").stdout.splitlines()
        return [json.loads(line)["body"]["machine"]["temperature"] for line in lines]

    commands.until(lambda: 5000 in temperatures())
    assert "not-found" in commands.run("send", "nobody", "i", "{}").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["twin", "set", "temperature_filter", '{"threshold": NaN}'], "NaN is not a JSON number"),
        (["twin", "set", "temperature_filter", '{"threshold": 1e999}'], "too large a number"),
        (["twin", "get", ""], "the name is empty"),
        (["method", "", "ping"], "the name is empty"),
        (["env", ""], "the module's id is empty"),
        (["send", "$edgeHub", "input1", "{}"], "$edgeHub has no inputs"),
        (["send", "temperature_filter", "in/put", "{}"], "'in/put' is not the name of an input"),
        (["send", "temperature_filter", "", "{}"], "'' is not the name of an input"),
        (["send", "nobody", "input1", "{}"], "there is no module 'nobody'"),
        (["send", "", "input1", "{}"], "the name is empty"),
        (["send", "temperature_filter", "input1", "{}", "-p", "unit"], "'unit' is not NAME=VALUE"),
        (["send", "temperature_filter", "input1", "{}", "-p", "x=" + 17_000 * "x"], "properties have at most 16384"),
        (["send", "temperature_filter", "input1", "@nowhere"], "nowhere: No such file"),
        (["twin", "get", "nobody"], "there is no module edge01/nobody (404 ModuleNotFound)"),
        (["twin", "set", "temperature_filter", "[1]"], "must be a JSON object"),
        (["twin", "set", "temperature_filter", '{"a b": 1}'], "'a b' is not a property name"),
        (["method", "temperature_filter", ""], "the name is empty"),
        (["connection-string", "service", "--policy", "nobody"], "registryReadWrite"),
        (["connection-string", "device", "--policy", "service"], "a device has a key of its own"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(commands: Commands, arguments: list[str], said: str) -> None:
    done = commands.run(*arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "\n  do:    " in done.stderr


@pytest.mark.parametrize("size", [262_145, 3_000_000], ids=["one byte too many", "more than the simulator reads"])
def test_a_message_over_the_limit_is_not_sent(commands: Commands, size: int) -> None:
    done = commands.run("send", "temperature_filter", "input1", "-", stdin="x" * size)
    assert (done.returncode, "at most 262144 bytes" in done.stderr) == (1, True), done.stderr


def test_what_needs_a_running_simulator_says_so(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "state")
    for arguments in (["monitor"], ["send", "m", "i", "{}"], ["twin", "get", "m"], ["offline", "on"]):
        done = commands.run(*arguments)
        assert (done.returncode, "simulator-not-running" in done.stderr) == (1, True), done.stderr


def test_the_state_needs_a_directory_that_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = Commands(tmp_path / "file" / "state").run("up", str(SOLUTION / "deployment.template.json"))
    assert done.returncode == 1
    assert "state-directory-unusable" in done.stderr
    assert "--state" in done.stderr


def test_a_layer_alone_is_not_started(tmp_path: Path) -> None:
    layer = tmp_path / "layer.template.json"
    routes = {"properties.desired.routes.more": "FROM /messages/modules/a/outputs/x INTO $upstream"}
    layer.write_text(json.dumps({"id": "more", "priority": 2, "content": {"modulesContent": {"$edgeHub": routes}}}))
    done = Commands(tmp_path / "state").run("up", str(layer))
    assert (done.returncode, "layer-alone" in done.stderr) == (1, True), done.stderr


def test_logs_are_printed_and_followed(commands: Commands) -> None:
    commands.until(lambda: commands.run("logs", "temperature_sensor").stdout.startswith("sent 21.0\n"))
    assert len(commands.run("logs", "temperature_sensor", "--tail", "2").stdout.splitlines()) == 2
    following = subprocess.Popen(
        commands._line("logs", "temperature_sensor", "-f", "--tail", "0"), stdout=subprocess.PIPE, text=True
    )
    assert following.stdout is not None
    assert following.stdout.readline().startswith("sent ")
    following.terminate()
    following.communicate()
    assert "no-such-log" in commands.run("logs", "../lock").stderr


@pytest.mark.timeout(180)
def test_offline_is_an_outage_that_survives_a_restart(commands: Commands) -> None:
    commands.until(lambda: commands.reported("temperature_filter").get("threshold"))
    before = commands.reported("temperature_filter")["threshold"]
    assert commands.run("offline", "on").returncode == 0
    taken = commands.status()["events"]
    commands.until(lambda: commands.status()["waitingUpstream"] > 2)
    assert f"upstream offline; messages: {taken} arrived, " in commands.run("status").stdout
    assert commands.module("temperature_sensor")["connected"]
    assert "not connected" in commands.run("method", "temperature_sensor", "reset").stderr
    commands.run("twin", "set", "temperature_filter", '{"threshold": 23}')
    assert commands.reported("temperature_filter")["threshold"] == before
    commands.stop()
    assert commands.run("status").returncode == 3
    commands.start()  # applies the template again, which the device does not hear of either
    status = commands.status()
    assert (status["online"], status["events"]) == (False, taken)
    waiting = status["waitingUpstream"]
    assert waiting > 2
    assert commands.run("offline", "off").returncode == 0
    commands.until(lambda: commands.status()["waitingUpstream"] == 0)
    assert commands.status()["events"] >= taken + waiting
    commands.until(lambda: commands.reported("temperature_filter").get("threshold") == 25)


def test_the_control_socket_is_private(commands: Commands) -> None:
    from edgeclave.simulator.workload.sockets import runtime_folder

    path = runtime_folder(commands.state) / "control"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == os.getuid()


def test_fresh_starts_over_and_leaves_other_files_alone(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "state")
    commands.start()
    commands.stop()
    (commands.state / "mine.txt").write_text("mine")
    first = (commands.state / "pki/root-ca.pem").read_bytes()
    commands.start("--fresh")
    assert (commands.state / "pki/root-ca.pem").read_bytes() != first
    assert (commands.state / "mine.txt").read_text() == "mine"
    refused = commands.run("up", str(SOLUTION / "deployment.template.json"), "--fresh")
    assert "simulator-running" in refused.stderr
    commands.stop()


@pytest.mark.timeout(180)
def test_without_deploying_the_device_runs_what_deploy_gives_it(tmp_path: Path) -> None:
    solution = Path(shutil.copytree(SOLUTION, tmp_path / "solution"))
    commands = Commands(tmp_path / "state", solution)
    commands.start("--no-deploy")
    assert {each["moduleId"] for each in commands.status()["modules"]} == {"$edgeAgent", "$edgeHub"}

    module = solution / "modules" / "temperature_filter" / "module.json"
    module.write_text(module.read_text().replace('"version": "0.0.1"', '"version": "0.0.2"'))
    hub = tmp_path / "hub.txt"
    hub.write_text(commands.run("connection-string", "service").stdout)
    target = ["--hub", f"@{hub}", "--ca", str(commands.state / "pki/root-ca.pem"), "--device", "edge01"]
    deploy = [sys.executable, "-m", "edgeclave", "deploy", str(solution / "deployment.template.json"), *target, "--yes"]
    done = subprocess.run(deploy, capture_output=True, text=True, check=False, timeout=90)
    assert (done.returncode, "healthy: 1 of 1 devices run it" in done.stdout) == (0, True), done.stdout + done.stderr
    assert "temperature_filter:0.0.2-amd64" in done.stdout

    commands.stop()
    commands.start("--no-deploy")
    commands.until(lambda: commands.module("temperature_filter").get("status") == "running")
    commands.stop()


async def test_fresh_in_a_folder_that_is_no_state_removes_nothing(tmp_path: Path) -> None:
    from edgeclave.simulator.state import start_over

    (tmp_path / "data").mkdir()
    await asyncio.to_thread(start_over, tmp_path)
    assert (tmp_path / "data").is_dir()


@pytest.mark.timeout(180)
def test_a_module_is_taken_over_and_given_back(commands: Commands) -> None:
    if commands.up is None:
        commands.start()
    commands.until(lambda: commands.module("temperature_filter").get("status") == "running")
    answer = commands.read("take-over", "temperature_filter")
    taken = commands.module("temperature_filter")
    assert (taken["status"], taken["connected"]) == ("stopped", False)
    assert "edgeclave sim give-back temperature_filter" in taken["description"]
    file = Path(answer["file"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    sourced = subprocess.run(
        ["env", "-i", "sh", "-c", f"set -a; . '{file}'; exec env"], capture_output=True, text=True, check=True
    )
    read = dict(line.split("=", 1) for line in sourced.stdout.splitlines())
    assert answer["environment"].items() <= read.items()

    own = subprocess.Popen(
        [sys.executable, str(SOLUTION / "modules" / "temperature_filter" / "main.py")],
        env={**os.environ, **answer["environment"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    commands.until(lambda: commands.module("temperature_filter")["connected"])
    assert commands.module("temperature_filter")["status"] == "stopped", "it is not run twice"
    own.terminate()
    own.wait(20)
    assert commands.run("give-back", "temperature_filter").returncode == 0
    commands.until(lambda: commands.module("temperature_filter")["connected"])
    assert commands.module("temperature_filter")["status"] == "running"
    refused = commands.run("take-over", "temperature_filtre")
    assert (refused.returncode, "no-such-module" in refused.stderr) == (1, True)
    assert not (file.parent / "temperature_filtre.env").exists()


def test_up_says_when_all_modules_were_started_and_may_be_content_with_one_that_runs(tmp_path: Path) -> None:
    line = Commands(tmp_path / "state")._line("up", str(SOLUTION / "deployment.template.json"))
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as up:
        try:
            assert up.stdout is not None
            printed = list(iter(up.stdout.readline, "ready: 2 modules run; Ctrl-C ends it\n"))
            running = sorted(line.split()[1] for line in printed if line.startswith("running"))
            assert running == ["temperature_filter", "temperature_sensor"]
            again = subprocess.run([*line, "--if-needed"], capture_output=True, text=True, check=False)
            assert (again.returncode, again.stdout.startswith("ready: one runs already")) == (0, True)
            assert "simulator-running" in subprocess.run(line, capture_output=True, text=True, check=False).stderr
        finally:
            up.terminate()
