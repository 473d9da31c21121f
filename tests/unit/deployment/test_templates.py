"""What the project's own templates promise: the least a module needs, and layers that change only what they are for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeclave.deployment import generate
from edgeclave.deployment.known_modules import ENDS, SAMPLE_ANALYTICS, TA_RUNNER
from tests.fixtures.deployment_solution import ROOT

MODULES = ("ta_runner", "enclave_broker", "sample_analytics")
DEVICES = {
    "sgx": ["/dev/sgx_enclave", "/dev/sgx_provision"],
    "tdx": ["/dev/tdx_guest"],
    "sev-snp": ["/dev/sev-guest"],
    "optee": ["/dev/tee0"],
    "tpm": ["/dev/tpmrm0"],
}


def template(name: str) -> Any:
    return json.loads((ROOT / name).read_text())


def modules_of(document: Any) -> dict[str, Any]:
    modules: dict[str, Any] = document["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    return modules


def test_the_debug_template_differs_in_images_and_debug_ports_only() -> None:
    debug = template("deployment.debug.template.json")
    for name, port in {"sample_analytics": "5678", "enclave_broker": "5679", "ta_runner": "5680"}.items():
        settings = modules_of(debug)[name]["settings"]
        assert settings["image"] == f"${{MODULES.{name}.debug}}"
        settings["image"] = f"${{MODULES.{name}}}"
        options = settings["createOptions"]
        assert options.pop("ExposedPorts") == {"5678/tcp": {}}
        published = options["HostConfig"].pop("PortBindings")
        assert published == {"5678/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}  # a debugger runs any code
    assert debug == template("deployment.template.json")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_gets_the_least_it_needs(name: str) -> None:
    module = modules_of(template("deployment.template.json"))[name]
    host = module["settings"]["createOptions"].pop("HostConfig")
    assert module["settings"] == {"image": f"${{MODULES.{name}}}", "createOptions": {}}
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert 0 < host["Memory"] <= 512 << 20
    assert 0 < host["PidsLimit"] <= 128
    assert host["LogConfig"]["Config"].keys() == {"max-size", "max-file"}
    assert {mount["Type"] for mount in host["Mounts"]} == {"volume"}
    assert all(options.startswith("rw,noexec,nosuid,size=") for options in host["Tmpfs"].values())
    assert set(host) == {
        "ReadonlyRootfs", "CapDrop", "SecurityOpt", "Memory", "PidsLimit", "LogConfig", "Tmpfs", "Mounts"
    }  # fmt: skip


def test_modules_start_one_after_the_other_and_always_again() -> None:
    modules = modules_of(template("deployment.template.json"))
    assert [modules[name]["startupOrder"] for name in MODULES] == [1, 2, 3]
    assert {module["restartPolicy"] for module in modules.values()} == {"always"}
    assert {module["imagePullPolicy"] for module in modules.values()} == {"on-create"}


def test_routes_have_priorities_and_times_to_live() -> None:
    """Evidence goes before the results that it proves."""
    hub = template("deployment.template.json")["modulesContent"]["$edgeHub"]["properties.desired"]
    assert [hub["routes"][name]["priority"] for name in ("evidence", "results")] == [0, 1]
    assert all(route["timeToLiveSecs"] == 7 * 24 * 3600 for route in hub["routes"].values())


@pytest.mark.parametrize("tee", DEVICES)
def test_a_tee_adds_its_devices_to_the_module_and_nothing_else(tee: str) -> None:
    layer = template(f"deployments/tee-{tee}.template.json")
    assert layer["targetCondition"] == f"tags.tee = '{tee}'"
    (entry,) = layer["content"]["modulesContent"]["$edgeAgent"].items()
    assert entry[0] == "properties.desired.modules.ta_runner"
    devices = entry[1]["settings"]["createOptions"]["HostConfig"].pop("Devices")
    assert [device["PathOnHost"] for device in devices] == DEVICES[tee]
    assert all(device["PathInContainer"] == device["PathOnHost"] for device in devices)
    assert {device["CgroupPermissions"] for device in devices} == {"rw"}
    assert entry[1]["settings"].pop("image") == "${MODULEDIR<../modules/ta_runner>}"  # found from that folder
    entry[1]["settings"]["image"] = "${MODULES.ta_runner}"
    assert entry[1] == modules_of(template("deployment.template.json"))["ta_runner"]
    assert list(layer["content"]["modulesContent"]) == ["$edgeAgent"]


@pytest.mark.parametrize("platform", ["amd64", "arm64v8"])
def test_every_template_has_images_for_every_platform(solution: Path, platform: str) -> None:
    for path in [solution / "deployment.template.json", *solution.glob("deployments/*.template.json")]:
        deployment = generate(path, {}, platform=platform)
        assert deployment.notes == ()
        assert deployment.name == path.name.replace(".template.json", f".{platform}.json")
        assert all(image.endswith(f"-{platform}") for image in deployment.folders)
        assert all(folder.parent == solution / "modules" for folder in deployment.folders.values())


def test_the_page_names_every_layer_and_its_devices() -> None:
    page = (ROOT / "docs/deployment.md").read_text()
    for path in ROOT.glob("deployments/*.template.json"):
        name = path.name.removesuffix(".template.json")
        assert f"| `{name}` | `{template(f'deployments/{path.name}')['targetCondition']}` |" in page


def test_inputs_and_outputs_are_those_of_the_modules() -> None:
    from sample_analytics.sources.input import INPUT_NAME
    from ta_runner.delivery import EVIDENCE_OUTPUT

    assert ENDS[SAMPLE_ANALYTICS].inputs == {INPUT_NAME}
    assert ENDS[TA_RUNNER].outputs == {EVIDENCE_OUTPUT}
