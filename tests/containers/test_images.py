"""What the images are: who runs in them, what is inside, how they start and stop."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from edgeclave.evidence.runtime import runtime_digest
from tests.fixtures.builds import CACHE, REPOSITORY
from tests.fixtures.console import Command, read_steps
from tests.fixtures.container_engine import CLIENT, docker
from tests.fixtures.module_images import BUILD_ENVIRONMENT, MODULES, build_command, image_name
from tests.fixtures.module_images import module_images as build_module_images
from tests.unit.images.test_image_sources import LISTS, pinned

INSIDE = Path(__file__).parent / "inside"
MEBIBYTE = 1 << 20
LARGEST = {"enclave_broker": 60 * MEBIBYTE, "sample_analytics": 60 * MEBIBYTE, "ta_runner": 90 * MEBIBYTE}
"""Beyond the base, with bytecode. ta_runner has wasmtime, which is 30 MiB."""
STOP_SECONDS = 2.0
HEALTH_SECONDS = 60.0
SERVICE = """
from edgeclave.edge.service import run

async def main(service):
    service.checks["state"] = lambda: "it is ill" if (service.state / "ill").exists() else None
    await service.stopping.wait()

run("service", main)
"""
HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "128"),
    *("--memory", "256m", "--tmpfs", "/tmp:rw,noexec,nosuid,size=16m"),
)
WITHOUT_SHELL = tuple(f"--volume=/dev/null:/usr/bin/{shell}:ro" for shell in ("sh", "dash", "bash"))


@functools.cache
def inventory(module: str) -> dict[str, Any]:
    """What lies in the image; looked at once for all test processes."""
    image = configuration(module)["Id"]
    program = (INSIDE / "inventory.py").read_bytes()
    kept = CACHE / f"inventory-{hashlib.sha256(image.encode() + program).hexdigest()[:32]}.json"
    with (CACHE / f"inventory-{module}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            mounted = ("--volume", f"{INSIDE}:/inside:ro", "--network", "none", "--entrypoint", "python3")
            kept.write_text(docker("run", "--rm", *HARDENED, *mounted, image, "/inside/inventory.py", module))
    return dict(json.loads(kept.read_text()))


@functools.cache
def configuration(module: str, platform: str = "amd64") -> dict[str, Any]:
    return dict(json.loads(docker("image", "inspect", image_name(module, platform)))[0])


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest, module_images: dict[str, str]) -> str:
    return str(request.param)


def test_a_module_runs_as_a_fixed_user_and_is_asked_for_its_health_without_a_shell(module: str) -> None:
    config = configuration(module)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["python3", f"/app/modules/{module}/main.py"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python3", "-m", "edgeclave.edge.health"]
    assert (config["StopSignal"], list(config["Volumes"])) == ("SIGTERM", ["/var/lib/edgeclave"])
    assert config.get("ExposedPorts") is None


def test_labels_say_what_it_is_and_what_it_was_built_from(module: str, base_image: str) -> None:
    labels = configuration(module)["Config"]["Labels"]
    said = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    described = json.loads((REPOSITORY / "modules" / module / "module.json").read_text())
    assert said == {
        "title": module,
        "description": described["description"],
        "licenses": "MIT",
        "version": described["image"]["tag"]["version"],
        "base.name": base_image,
        "source": "",
        "revision": "",
        "created": "",
    }


def test_whoever_builds_says_from_what(module_images: dict[str, str], base_image: str) -> None:
    said = {
        "VERSION": "1.2.3",
        "SOURCE": "https://example.org/edgeclave",
        "REVISION": "0123456789abcdef",
        "CREATED": "2026-01-02T03:04:05Z",
    }
    image = image_name("enclave_broker", "labelled")
    command = build_command("enclave_broker", "amd64", image=image, arguments={"BASE": base_image, **said})
    done = subprocess.run(command, check=False, cwd=REPOSITORY, env=BUILD_ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    try:
        labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", image))
        assert {name: labels[f"org.opencontainers.image.{name.lower()}"] for name in said} == said
    finally:
        docker("image", "rm", image)


def test_the_command_of_the_page_builds_an_image(base_image: str) -> None:
    (step,) = (step for step in read_steps(REPOSITORY / "docs" / "images.md") if isinstance(step, Command))
    tag = re.search(r"--tag (\S+)", step.text)
    assert tag is not None
    image = image_name("ta_runner", "page")
    here = step.text.replace(tag[1], image).replace("docker build", f"{CLIENT} build --build-arg BASE={base_image}")
    done = subprocess.run(here, shell=True, check=False, cwd=REPOSITORY, env=BUILD_ENVIRONMENT, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    docker("image", "rm", image)


def test_an_image_is_little_more_than_its_base(module: str, base_image: str) -> None:
    base = int(docker("image", "inspect", "--format", "{{.Size}}", base_image))
    assert configuration(module)["Size"] - base < LARGEST[module]


def test_an_image_has_exactly_the_packages_of_its_list(module: str) -> None:
    found = {canonicalize_name(name): version for name, version in inventory(module)["packages"].items()}
    assert found == pinned(LISTS[module]) | pinned(LISTS["source"])
    assert inventory(module)["missing"] == [], "what a package asks for is there"


def test_the_bill_of_materials_inside_is_of_what_is_inside(module: str) -> None:
    found = inventory(module)
    billed = {canonicalize_name(one["name"]): one["version"] for one in found["bill"]["components"]}
    assert billed == {canonicalize_name(name): version for name, version in found["packages"].items()}


def test_no_installer_compiler_or_test_tool_is_inside_and_nothing_can_be_changed(module: str) -> None:
    found = inventory(module)
    assert (found["tools"], found["modules"], found["writable"]) == ([], [], [])
    assert found["files"] == (["/app/edgeclave/ta/wit/edgeclave-ta.wit"] if module == "ta_runner" else [])


def test_everything_is_compiled_and_so_starts_sooner(module: str) -> None:
    found = inventory(module)
    assert (found["without bytecode"], found["imported without bytecode"]) == ([], [])
    assert found["seconds"] < 0.7 * found["seconds without bytecode"]


def test_the_runtime_that_is_measured_in_the_image_is_that_of_this_release(module_images: dict[str, str]) -> None:
    assert inventory("ta_runner")["runtime"] == runtime_digest().hex()


def test_without_iot_edge_it_says_so_in_one_line(module: str) -> None:
    container = docker("run", "--detach", *HARDENED, *WITHOUT_SHELL, image_name(module, "amd64"))
    try:
        assert docker("wait", container) == "1"
        last = json.loads(docker("logs", container, errors=True).splitlines()[-1])
        assert (last["event"], last["code"], last["module"]) == ("module cannot run", "not-on-iot-edge", module)
        assert "sim up" in last["advice"]
    finally:
        docker("rm", "--force", "--volumes", container)


def test_a_debug_image_waits_for_a_debugger_only_when_told_to(module_images: dict[str, str]) -> None:
    """That one attaches is tried with the launch configuration, in tests/containers/test_debug_image.py."""
    image = build_module_images("amd64.debug")["enclave_broker"]
    assert configuration("enclave_broker", "amd64.debug")["Config"]["ExposedPorts"] == {"5678/tcp": {}}
    at_once = docker("run", "--detach", *HARDENED, image)
    waiting = docker("run", "--detach", *HARDENED, "--env=DEBUG_WAIT=1", image)
    try:
        assert docker("wait", at_once) == "1"
        said = docker("logs", at_once, errors=True).splitlines()
        assert json.loads(said[-1])["code"] == "not-on-iot-edge"
        assert docker("logs", waiting, errors=True) == ""
        assert docker("inspect", "--format", "{{.State.Running}}", waiting) == "true"
    finally:
        docker("rm", "--force", "--volumes", at_once, waiting)


@contextmanager
def started(image: str, *options: str, program: str) -> Iterator[str]:
    container = docker(
        "run", "--detach", *HARDENED, *WITHOUT_SHELL, *options, "--entrypoint=python3", image, "-c", program
    )
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container)


def test_it_is_confined_tells_its_health_and_is_gone_soon_after_sigterm(module: str) -> None:
    """The image's own service, without a device; tests/containers runs the whole modules on a simulated one."""
    with started(image_name(module, "amd64"), "--health-interval=1s", program=SERVICE) as container:
        assert wait_for_health(container, "healthy")["Log"][-1]["Output"].startswith('{"status": "healthy"')
        status = docker("exec", container, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        assert fields["Uid"].split() == fields["Gid"].split() == ["10001"] * 4
        assert (fields["CapEff"], fields["CapBnd"], fields["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
        assert docker("exec", container, "sh", "-c", "echo ran", check=False) != "ran", "there is no shell"
        docker("exec", container, "python3", "-c", "open('/var/lib/edgeclave/ill', 'w')")
        assert "it is ill" in wait_for_health(container, "unhealthy")["Log"][-1]["Output"]
        began = time.monotonic()
        docker("stop", container)
        assert time.monotonic() - began < STOP_SECONDS
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"


def wait_for_health(container: str, wanted: str) -> dict[str, Any]:
    deadline = time.monotonic() + HEALTH_SECONDS
    while True:
        health = dict(json.loads(docker("inspect", "--format", "{{json .State.Health}}", container)))
        if health["Status"] == wanted:
            return health
        assert time.monotonic() < deadline, (health, docker("logs", container, errors=True))
        time.sleep(0.2)
