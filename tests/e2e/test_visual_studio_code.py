"""Open the folder, press F5: the launch configurations and tasks of this repository, done as VS Code does them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]

from edgeclave.simulator import SimulatorThread
from tests.e2e.suite import ROOT, Suite
from tests.fixtures.console import Command, read_steps
from tests.fixtures.needs import missing, tool
from tests.fixtures.visual_studio_code import Window, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
(SEND,) = (shlex.split(step.text) for step in read_steps(ROOT / "docs" / "developing.md") if isinstance(step, Command))
READING = json.loads(SEND[-1])
OWN_MODULE = """
from azure.iot.device import IoTHubModuleClient

client = IoTHubModuleClient.create_from_edge_environment()
version = client.get_twin()["desired"]["$version"]
print("twin", version)
client.shutdown()
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """A checkout of its own after `make install`, so that nobody's simulator or keys are touched."""
    folder = tmp_path_factory.mktemp("checkout")
    if not (ROOT / ".venv" / ".development").exists():
        missing("this checkout has no .venv: run make install")
    for name in (".venv", "Makefile", "deploy", "edgeclave", "deployment.template.json"):
        (folder / name).symlink_to(ROOT / name)
    for name in (".vscode", "examples", "modules"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").touch()
    os.utime(folder / "pyproject.toml", (0, 0))  # older than what is installed, so that the task installs nothing
    with Window(folder) as opened:
        yield opened


def edgeclave(window: Window, *arguments: str) -> str:
    command = [str(window.folder / ".venv" / "bin" / "edgeclave"), *arguments]
    done = subprocess.run(command, cwd=window.folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def status(window: Window, module: str) -> str:
    modules = json.loads(edgeclave(window, "sim", "status", "--json"))["modules"]
    return str(next(each["status"] for each in modules if each["moduleId"] == module))


def line_of(file: Path, text: str) -> int:
    return next(number for number, line in enumerate(file.read_text().splitlines(), 1) if text in line)


def test_f5_stops_in_the_sample_at_a_message_that_comes_in(window: Window) -> None:
    source = window.folder / "modules" / "sample_analytics" / "sample_analytics" / "module.py"
    line = line_of(source, "if self._settings is not None and self._settings.source.kind")
    configuration = window.configuration()
    assert configuration["name"] == "sample_analytics on the simulator"
    editor = window.launch(configuration, source, line)
    assert "ready: 3 modules run" in window.output
    assert status(window, "sample_analytics") == "stopped"

    edgeclave(window, *SEND[1:])
    frame = editor.stopped()
    assert (frame["name"], frame["line"], Path(frame["source"]["path"])) == ("_arrived", line, source)
    body = editor.ask("evaluate", expression="message.body", frameId=frame["id"])["result"]
    assert json.loads(body.removeprefix("b'").removesuffix("'")) == READING

    editor.close()
    window.run(configuration["postDebugTask"])
    Suite.until(lambda: status(window, "sample_analytics") == "running", "the simulator to run it again", 30)
    window.run(configuration["preLaunchTask"])  # the second F5 finds everything in place
    assert window.output.count("ready: ") == 1
    window.run(configuration["postDebugTask"])


def test_f5_on_ta_runner_leaves_its_enclaves_alone(window: Window) -> None:
    source = window.folder / "modules" / "ta_runner" / "ta_runner" / "module.py"
    configuration = window.configuration("ta_runner on the simulator")
    editor = window.launch(configuration, source, line_of(source, "async def main(") + 2)
    frame = editor.stopped()
    assert (frame["name"], Path(frame["source"]["path"])) == ("main", source)
    editor.ask("continue", threadId=0)

    def running() -> bool:
        reported = json.loads(edgeclave(window, "sim", "twin", "get", "ta_runner", "--json"))["properties"]["reported"]
        apps = reported.get("trustedApps") or {}
        return bool((apps.get("anomaly") or {}).get("state") == "running")

    Suite.until(running, "the trusted application below a module that is debugged", 60)
    editor.close()
    window.run(configuration["postDebugTask"])


def test_attach_to_a_module_that_the_simulator_runs_with_debugpy(window: Window) -> None:
    configuration = window.configuration("Attach to a module of the simulator (5678)")
    assert configuration["connect"] == {"host": "127.0.0.1", "port": 5678}
    configuration["connect"]["port"] = port = free_port()  # other tests may publish 5678 at this moment
    template = debug_template(window.folder, port)
    state = ("--state", ".edgeclave/attach")
    command = [str(window.folder / ".venv" / "bin" / "edgeclave"), "sim", "up", str(template), *state]
    source = window.folder / "modules" / "sample_analytics" / "sample_analytics" / "module.py"
    with subprocess.Popen(command, cwd=window.folder, stdout=subprocess.PIPE, text=True) as simulator:
        try:
            assert simulator.stdout is not None
            assert any(line.startswith("ready: 1 modules run") for line in simulator.stdout)
            line = line_of(source, "if self._settings is not None and self._settings.source.kind")
            editor = window.attach(configuration, source, line)
            edgeclave(window, "sim", "send", "sample_analytics", "input1", json.dumps(READING), *state)
            frame = editor.stopped()
            assert (frame["name"], frame["line"], Path(frame["source"]["path"])) == ("_arrived", line, source)
            editor.close()
        finally:
            simulator.terminate()


def debug_template(folder: Path, port: int) -> Path:
    """The solution's template with one module, from its debug image, debugpy published at `port`."""
    template = json.loads((ROOT / "deployment.debug.template.json").read_text())
    content = template["modulesContent"]
    modules = content["$edgeAgent"]["properties.desired"]["modules"]
    settings = modules["sample_analytics"]["settings"]
    assert settings["image"] == "${MODULES.sample_analytics.debug}"
    (published,) = settings["createOptions"]["HostConfig"]["PortBindings"]["5678/tcp"]
    assert published == {"HostIp": "127.0.0.1", "HostPort": "5678"}
    published["HostPort"] = str(port)
    for other in ("ta_runner", "enclave_broker"):
        del modules[other], content[other]
    path = folder / "debug.template.json"
    path.write_text(json.dumps(template))
    return path


def test_a_file_of_ones_own_by_the_connection_string_of_the_extension(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extension keeps both values in its settings once its simulator runs; here they are of this project's own."""
    program = tmp_path / "own_module.py"
    program.write_text(OWN_MODULE)
    with SimulatorThread(tmp_path / "simulator") as simulator:
        environment = simulator.environment("own_module")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", simulator.ca_file)
        registry = IoTHubRegistryManager.from_connection_string(simulator.connection_string("service"))
        key = registry.get_module("edge01", "own_module").authentication.symmetric_key.primary_key
        monkeypatch.setenv("mqtt_proxy", environment["mqtt_proxy"])  # the extension's simulator has the fixed port 8883
        variables = {
            "file": str(program),
            "config:azure-iot-edge.EdgeHubConnectionString": (
                f"HostName={environment['IOTEDGE_IOTHUBHOSTNAME']};DeviceId=edge01;ModuleId=own_module;"
                f"SharedAccessKey={key};GatewayHostName={environment['IOTEDGE_GATEWAYHOSTNAME']}"
            ),
            "config:azure-iot-edge.EdgeModuleCACertificateFile": simulator.ca_file,
        }
        name = "This file as a module (connection string of the Azure IoT Edge extension)"
        with Window(window.folder, variables) as extended:
            configuration = extended.configuration(name)
            editor = extended.launch(configuration, program, line_of(program, "print("))
            frame = editor.stopped()
            assert editor.ask("evaluate", expression="version", frameId=frame["id"])["result"] == "1"


def test_a_c_application_stops_where_the_editor_set_the_breakpoint(window: Window) -> None:
    """Spoken to as the C++ extension speaks to gdb, in gdb's machine interface."""
    tool("gdb", "gdb")
    launch = window.configuration("examples/anomaly_c: a call of observe in the emulator (gdb)")
    source = window.folder / "examples" / "anomaly_c" / "app.c"
    line = line_of(source, "static ec_status observe(")
    commands = f"-gdb-set breakpoint pending on\n-break-insert -f {source}:{line}\n-{launch['launchCompleteCommand']}\n"
    with subprocess.Popen(
        [launch["miDebuggerPath"], "--interpreter=mi"],
        cwd=launch["cwd"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as gdb:
        assert gdb.stdin is not None
        assert gdb.stdout is not None
        gdb.stdin.write(commands)
        gdb.stdin.flush()
        stopped = next(line for line in gdb.stdout if line.startswith("*stopped"))
        gdb.stdin.write("-gdb-exit\n")
        gdb.stdin.close()
        gdb.stdout.read()
    assert 'func="observe"' in stopped
    assert f'fullname="{source}"' in stopped
