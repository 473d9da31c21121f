"""A debugger attaches to a module in its debug image, as the launch configuration of this repository says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fixtures.builds import REPOSITORY
from tests.fixtures.container_engine import docker
from tests.fixtures.module_images import module_images
from tests.fixtures.visual_studio_code import Window

LISTENS = ":162E 00000000:0000 0A"  # port 5678 in /proc/net/tcp
SECONDS = 60


@pytest.mark.slow
def test_a_breakpoint_in_the_checkout_stops_the_module_in_its_container() -> None:
    image = module_images("amd64.debug")["sample_analytics"]
    hardened = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    published = ("--publish", "127.0.0.1::5678", "--env", "DEBUG_WAIT=1")
    container = docker("run", "--detach", *hardened, *published, image)
    try:
        deadline = time.monotonic() + SECONDS
        while LISTENS not in docker("exec", container, "cat", "/proc/net/tcp", check=False):
            assert time.monotonic() < deadline, docker("logs", container)
            time.sleep(0.3)
        with Window(REPOSITORY) as window:
            configuration = window.configuration("Attach to a module in its container (5678)")
            configuration["connect"]["port"] = int(docker("port", container, "5678/tcp").rpartition(":")[2])
            source = REPOSITORY / "modules" / "sample_analytics" / "main.py"
            line = source.read_text().splitlines().index('    run("sample_analytics", main)') + 1
            frame = window.attach(configuration, source, line).stopped()
            assert (Path(frame["source"]["path"]), frame["line"]) == (source, line)
    finally:
        docker("rm", "--force", "--volumes", container)
