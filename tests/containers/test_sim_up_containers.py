"""`edgeclave sim up --containers` as a person runs it: images are built, modules run, and one clear error when not."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edgeclave.simulator.supervisor.containers.host import SIMULATOR_LABEL
from edgeclave.simulator.workload.sockets import runtime_folder
from tests.fixtures.builds import REPOSITORY
from tests.fixtures.console import Command, read_steps
from tests.fixtures.container_engine import docker

SECONDS = 90
(UP,) = (
    shlex.split(step.text) for step in read_steps(REPOSITORY / "docs" / "simulator.md") if isinstance(step, Command)
)
PROGRAM = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('here'); time.sleep(600)"
)
HEAD = "ARG BASE=nowhere.invalid/base:1\nFROM ${BASE}\n"
GOOD = HEAD + 'COPY main.py /main.py\nENTRYPOINT ["python3", "-u", "/main.py"]\n'


class Solution:
    """A folder with a template and modules; their Dockerfiles are given."""

    def __init__(self, folder: Path, base: str, **dockerfiles: str) -> None:
        self.state = folder / "state"
        self.images = {name: f"edgeclave-test/{name}-{uuid.uuid4()}" for name in dockerfiles}
        for name, dockerfile in dockerfiles.items():
            source = folder / "modules" / name
            source.mkdir(parents=True)
            (source / "main.py").write_text(PROGRAM)
            (source / "Dockerfile.amd64").write_text(dockerfile)
            tag = {"version": "1", "platforms": {"amd64": "Dockerfile.amd64"}}
            options = [f"--build-arg BASE={base}"] if name != "no_base" else []
            image = {"repository": self.images[name], "tag": tag, "buildOptions": options, "contextPath": "."}
            (source / "module.json").write_text(json.dumps({"$schema-version": "0.0.1", "image": image}))
        self.template = folder / "deployment.template.json"
        self.template.write_text(json.dumps(_template(list(dockerfiles))))

    @contextmanager
    def up(self) -> Iterator[Events]:
        process = subprocess.Popen(
            [*EDGECLAVE, *UP[1:], str(self.template), "--state", str(self.state), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield Events(process)
        finally:
            if process.poll() is None:
                process.terminate()
                assert process.wait(30) == 0

    def left(self) -> list[str]:
        label = f"label={SIMULATOR_LABEL}={runtime_folder(self.state).name}"
        containers = docker("ps", "--all", "--quiet", "--filter", label).split()
        return [*containers, *docker("network", "ls", "--quiet", "--filter", label).split()]


class Events:
    """What the command says, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.seen: list[dict[str, Any]] = []

    def until(self, event: str, **members: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        deadline = time.monotonic() + SECONDS
        for line in self.process.stdout:
            self.seen.append(json.loads(line))
            if {"event": event, **members}.items() <= self.seen[-1].items():
                return self.seen[-1]
            assert time.monotonic() < deadline
        raise AssertionError(f"ended without {event} {members}: {self.seen}")


Make = Callable[..., Solution]


@pytest.fixture
def make_solution(engine: None, base_image: str, tmp_path: Path) -> Iterator[Make]:
    """Its images are not kept."""
    made: list[Solution] = []

    def make(**dockerfiles: str) -> Solution:
        made.append(Solution(tmp_path, base_image, **dockerfiles))
        return made[-1]

    yield make
    for image in made[0].images.values():
        docker("image", "rm", f"{image}:1-amd64", check=False)


EDGECLAVE = [sys.executable, "-m", "edgeclave"]


def _template(modules: list[str]) -> dict[str, Any]:
    def module(name: str, order: int) -> dict[str, Any]:
        return {
            "type": "docker",
            "status": "running",
            "restartPolicy": "always",
            "version": "1",
            "startupOrder": order,
            "settings": {"image": f"${{MODULES.{name}}}", "createOptions": {}},
        }

    system = {
        "edgeAgent": {"type": "docker", "settings": {"image": "mcr.microsoft.com/azureiotedge-agent:1.6"}},
        "edgeHub": {
            "type": "docker",
            "status": "running",
            "restartPolicy": "always",
            "settings": {"image": "mcr.microsoft.com/azureiotedge-hub:1.6"},
        },
    }
    agent = {
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25"}},
        "systemModules": system,
        "modules": {name: module(name, order) for order, name in enumerate(modules)},
    }
    hub = {
        "schemaVersion": "1.2",
        "routes": {"up": "FROM /messages/* INTO $upstream"},
        "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
    }
    return {
        "$schema-template": "4.0.0",
        "modulesContent": {"$edgeAgent": {"properties.desired": agent}, "$edgeHub": {"properties.desired": hub}},
    }


def test_images_are_built_with_progress_and_what_cannot_be_built_is_told_by_name(
    make_solution: Make,
) -> None:
    failing = HEAD + "RUN echo something is wrong && exit 7\n"
    kit = HEAD + "RUN --mount=type=cache,target=/x true\n"
    solution = make_solution(failing=failing, kit=kit, no_base=GOOD, good=f"{GOOD}RUN sleep 5 # {uuid.uuid4()}\n")
    with solution.up() as events:
        running = events.until("module", module="good", status="running")
        assert running["description"] == f"container {runtime_folder(solution.state).name}-good"
        steps = [each["text"] for each in events.seen if each["event"] == "progress" and each["module"] == "good"]
        building = f"building {solution.images['good']}:1-amd64"
        assert steps[0] == building
        assert any(step.startswith(f"{building}, step 5 of 5: RUN sleep 5") for step in steps)
        assert len(steps) < 5  # not what is over at once
        failed = {each["module"]: each["description"] for each in events.seen if each.get("status") == "failed"}
        assert set(failed) == {"failing", "kit", "no_base"}
        assert "returned a non-zero code: 7" in failed["failing"]
        assert "without --mount" in failed["kit"]
        assert "check its FROM" in failed["no_base"]
        assert "build: something is wrong" in (solution.state / "logs/failing.log").read_text()
        logs = subprocess.run(
            [*EDGECLAVE, "sim", "logs", "good", "--state", str(solution.state)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert logs.stdout == "here\n"
        assert len(solution.left()) == 2
    assert solution.left() == []


def test_an_interrupted_build_does_not_keep_anyone_waiting(make_solution: Make) -> None:
    solution = make_solution(slow=HEAD + f"RUN sleep 300 # {uuid.uuid4()}\n")
    with solution.up() as events:
        while "step 3 of 3" not in events.until("progress", module="slow")["text"]:
            pass
        began = time.monotonic()
        events.process.send_signal(signal.SIGINT)
        assert events.process.wait(30) == 0
        assert time.monotonic() - began < 10
    assert solution.left() == []


@pytest.mark.parametrize("moment", ["started", "applied"])
def test_an_interrupted_start_leaves_nothing(make_solution: Make, moment: str) -> None:
    solution = make_solution(good=GOOD)
    with solution.up() as events:
        events.until(moment)
        events.process.terminate()
        assert events.process.wait(30) == 0
        assert events.until("stopped")["reason"] == "SIGTERM"
    assert solution.left() == []


def test_a_killed_simulator_is_followed_by_one_that_begins_clean(make_solution: Make) -> None:
    solution = make_solution(good=GOOD)
    with solution.up() as events:
        events.until("module", module="good", status="running")
        left = solution.left()
        events.process.kill()
        events.process.wait()
    assert solution.left() == left
    with solution.up() as events:
        events.until("module", module="good", status="running")
        assert len(solution.left()) == 2
        assert left[0] not in solution.left()
    assert solution.left() == []


@pytest.mark.parametrize(
    ("host", "code", "advice"),
    [
        pytest.param("unix:///nowhere/docker.sock", "docker-not-there", "install Docker Engine", id="no engine"),
        pytest.param("unix://{garbage}", "docker-unusable", "docker version", id="no engine behind the socket"),
        pytest.param("tcp://127.0.0.1:2375", "docker-elsewhere", "unset DOCKER_HOST", id="an engine elsewhere"),
    ],
)
def test_without_an_engine_nothing_starts(tmp_path: Path, host: str, code: str, advice: str) -> None:
    solution = Solution(tmp_path, "base", good=GOOD)
    garbage = tmp_path / "garbage.sock"
    with _answering(garbage, b"what?\r\n\r\n"):
        done = subprocess.run(
            [*EDGECLAVE, "sim", "up", str(solution.template), "--state", str(solution.state), "--containers"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "DOCKER_HOST": host.format(garbage=garbage)},
            timeout=60,
        )
    assert done.returncode == 1
    assert f"error [{code}]" in done.stderr
    assert advice in done.stderr
    assert "Traceback" not in done.stderr
    assert not solution.state.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_user_without_permission_is_told_what_to_do(engine: None) -> None:
    program = """
import asyncio, os
import docker.utils
from edgeclave.simulator.supervisor.containers.engine import Engine
os.setgroups([])
os.setuid(65534)
asyncio.run(Engine.connect())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "docker-refuses-user" in done.stderr
    assert "usermod -aG docker" in done.stderr


@contextmanager
def _answering(path: Path, answer: bytes) -> Iterator[None]:
    """Something that listens on a socket and says the same to everyone."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield
