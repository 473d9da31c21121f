"""`edgeclave deploy --config-id`: by tag, in layers, over others, against others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.protocol.models import (  # type: ignore[import-untyped]
    Configuration,
    ConfigurationContent,
)

from edgeclave.simulator import SimulatorThread
from tests.integration.deploy.conftest import Deploy, Solution

PRESSES = ("--target", "tags.role = 'press'")
Tag = Callable[..., None]


def test_new_versions_get_new_ids_and_the_old_one_comes_back_by_its_priority(
    device: SimulatorThread, solution: Solution, deploy: Deploy, tag: Tag, configurations: IoTHubConfigurationManager
) -> None:
    tag(role="press")
    old = solution.template("old.template.json")
    first = deploy(old, "--config-id", "presses-1", *PRESSES, "--priority", 10, "--label", "site=north", "--yes")
    assert first.code == 0, first.out + first.err
    assert "targets 1 device now: edge01" in first.out
    assert "the hub counts, of edgeAgents: targeted 1, applied 1, reportedSuccessful 1, reportedFailed 0" in first.out
    assert configurations.get_configuration("presses-1").labels == {"site": "north"}
    solution.version("2.0")
    second = deploy(solution.template(), "--config-id", "presses-2", *PRESSES, "--priority", 20, "--yes")
    assert second.code == 0, second.out + second.err
    assert "compared with the deployment presses-1" in second.out
    assert 'settings.image: "registry/worker:1.0-amd64" -> "registry/worker:2.0-amd64"' in second.out
    solution.version("1.0")
    back = deploy(old, "--config-id", "presses-1", *PRESSES, "--priority", 30, "--label", "site=north", "--yes")
    assert back.code == 0, back.out + back.err
    assert "~ priority: 10 -> 30" in back.out
    assert "settings.image" not in back.out


def test_another_content_under_the_same_id_is_refused_with_the_difference(
    device: SimulatorThread, solution: Solution, deploy: Deploy, tag: Tag
) -> None:
    tag(role="press")
    assert deploy(solution.template(), "--config-id", "presses", *PRESSES, "--yes").code == 0
    done = deploy(solution.template(rate=2), "--config-id", "presses", *PRESSES, "--yes")
    assert (done.code, "content-cannot-change" in done.err) == (1, True)
    assert "twin.rate: 1 -> 2" in done.out


def test_a_layer_adds_to_what_is_below(
    device: SimulatorThread, solution: Solution, deploy: Deploy, tag: Tag, registry: IoTHubRegistryManager
) -> None:
    tag(role="press", fast=True)
    assert deploy(solution.template(), "--config-id", "base", *PRESSES, "--priority", 1, "--yes").code == 0
    extra = {
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "env": {"GREETING": {"value": "more"}},
        "settings": {"image": "${MODULES.worker}", "createOptions": {}},
    }
    layer = solution.write(
        "fast.template.json",
        {
            "$edgeAgent": {"properties.desired.modules.extra": extra},
            "$edgeHub": {"properties.desired.routes.extra": "FROM /messages/modules/extra/* INTO $upstream"},
            "worker": {"properties.desired.rate": 9},
        },
        layer={"id": "fast", "targetCondition": "tags.fast = true", "priority": 5, "labels": {"a": "b"}},
    )
    done = deploy(layer, "--layered", "--yes", "--json")
    assert (done.code, done.ended["healthy"]) == (0, True), done.out + done.err
    assert {event["part"] for event in done.events if event["event"] == "state"} >= {"worker", "extra"}
    assert registry.get_module_twin("edge01", "worker").properties.desired["rate"] == 9
    changed = deploy(layer, "--priority", 6, "--label", "c=d", "--dry-run")
    assert ("~ priority: 5 -> 6" in changed.out, '+ labels.c: "d"' in changed.out) == (True, True)


def test_a_layer_and_a_whole_deployment_are_told_apart(
    simulator: SimulatorThread, solution: Solution, deploy: Deploy
) -> None:
    whole = solution.template()
    layer = solution.write("layer.template.json", {"worker": {"properties.desired.rate": 9}}, layer={})
    for arguments in (
        (whole, "--config-id", "x", *PRESSES, "--layered"),
        (layer, "--device", "edge01"),
        (layer, "--config-id", "x"),
    ):
        done = deploy(*arguments)
        assert (done.code, "[bad-usage]" in done.err) == (2, True), arguments


def test_one_that_another_deployment_outranks_is_not_called_done(
    device: SimulatorThread, solution: Solution, deploy: Deploy, tag: Tag
) -> None:
    tag(role="press")
    assert deploy(solution.template(), "--config-id", "strong", *PRESSES, "--priority", 9, "--yes").code == 0
    weak = deploy(solution.template(rate=2), "--config-id", "weak", *PRESSES, "--priority", 3, "--yes", "--json")
    assert (weak.code, weak.ended["healthy"]) == (1, False)
    assert weak.wrong == {"edge01 edgeAgent": "another deployment counts there: strong"}
    assert any("its priority 3 is below that of strong" in note for note in weak.events[0]["notes"])


def test_each_targeted_device_is_watched(
    device: SimulatorThread, solution: Solution, deploy: Deploy, tag: Tag, registry: IoTHubRegistryManager
) -> None:
    registry.create_device_with_sas("asleep", "", "", "enabled", iot_edge=True)
    registry.create_device_with_sas("leaf", "", "", "enabled")
    for name in ("edge01", "asleep", "leaf"):
        tag(name, role="press")
    arguments = ("--config-id", "presses", *PRESSES, "--yes", "--json", "--timeout", 3)
    done = deploy(solution.template(), *arguments)
    assert done.code == 1
    assert (done.ended["devices"], done.ended["healthyDevices"]) == (2, 1)
    assert list(done.wrong) == ["asleep edgeAgent"]
    assert done.ended["counts"]["reportedSuccessfulCount"] == 1


def test_one_without_devices_is_stored_and_not_called_healthy(
    simulator: SimulatorThread, solution: Solution, deploy: Deploy
) -> None:
    done = deploy(solution.template(), "--config-id", "later", *PRESSES, "--yes")
    assert done.code == 0
    assert "targets no device now" in done.out
    assert "healthy" not in done.out
    told = deploy(solution.template(), "--config-id", "later", *PRESSES, "--yes", "--json")
    assert (told.code, told.ended["healthy"], told.ended["devices"]) == (0, False, 0)


@pytest.mark.parametrize("there_before", [pytest.param(False, id="created"), pytest.param(True, id="updated")])
def test_somebody_else_writes_it_meanwhile(
    device: SimulatorThread,
    solution: Solution,
    deploy: Deploy,
    configurations: IoTHubConfigurationManager,
    monkeypatch: Any,
    there_before: bool,
) -> None:
    """The hub's own 409 and 412, by which it is noticed."""
    template = solution.template()
    arguments = (template, "--config-id", "presses", *PRESSES)
    if there_before:
        assert deploy(*arguments, "--yes").code == 0

    def while_it_asks() -> None:
        if there_before:
            configuration = configurations.get_configuration("presses")
            configuration.priority = 77
            configurations.update_configuration(configuration, configuration.etag)
        else:
            content = ConfigurationContent(modules_content={"worker": {"properties.desired": {"rate": 3}}})
            configurations.create_configuration(
                Configuration(id="presses", content=content, target_condition="tags.role = 'press'", priority=77)
            )

    monkeypatch.setattr("edgeclave.cli.deploy._confirm", while_it_asks)
    done = deploy(*arguments, "--priority", 5)
    assert (done.code, "changed-meanwhile" in done.err) == (1, True), done.err
    assert "~ priority: 77 -> 5" in done.out
    assert configurations.get_configuration("presses").priority == 77
