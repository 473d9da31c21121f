"""docs/operating.md, done literally by an operator who has a checkout, on the simulator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.e2e.suite import ROOT
from tests.fixtures.console import Command, Reader, read_steps
from tests.fixtures.docker_registry import DockerRegistry

PAGE = ROOT / "docs" / "operating.md"
REGISTRY = "registry.example"
NOT_CHECKED = ("# On Azure, not checked here", "# On the gateway, not checked here")


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_from_an_empty_hub_to_a_device_whose_ta_was_upgraded_and_rolled_back(tmp_path: Path) -> None:
    for name in ("modules", "examples", "deployments", "deployment.template.json"):
        (tmp_path / name).symlink_to(ROOT / name)
    registry = DockerRegistry(tmp_path / "registry")
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text().replace(REGISTRY, registry.host))
    with registry.running(), Reader(tmp_path, {"DOCKER_CONFIG": str(tmp_path)}) as reader:
        assert reader.follow(page) >= 25


def test_the_page_leaves_no_command_out() -> None:
    text = PAGE.read_text()
    assert text.count("\n$ ") == sum(isinstance(step, Command) for step in read_steps(PAGE))
    others = re.findall(r"^```sh\n(.*)$", text, re.MULTILINE)
    assert others
    assert all(first.startswith(NOT_CHECKED) for first in others)


def test_the_metrics_of_the_page_are_those_of_the_modules() -> None:
    from enclave_broker.metrics import Metrics
    from ta_runner.metrics import RunnerMetrics

    registry = CollectorRegistry()
    Metrics(registry)
    RunnerMetrics(registry)
    offered = {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}
    section = PAGE.read_text().partition("## 9. Watch")[2].partition("\n## ")[0]
    named = set(re.findall(r"`((?:ta_runner|edgeclave_broker)_\w+)`", section))
    assert named == offered
