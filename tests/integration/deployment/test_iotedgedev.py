"""`iotedgedev solution genconfig`, unmodified: its schemas accept our templates, and it makes the manifest we make.

The tool validates the manifest that it generates, in silence nothing at all when it cannot download the schema. So the
first tests show that here it does download, and that a broken template is refused.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeclave.deployment import generate
from tests.fixtures import needs
from tests.fixtures.deployment_solution import copy_solution
from tests.fixtures.peer_tools import IOTEDGEDEV, environment_of, run
from tests.fixtures.schema_store import SchemaStore, schema_store

VALIDATED = "Deployment manifest schema validation passed."
GENERATED = [
    pytest.param("deployment.template.json", "amd64", id="amd64"),
    pytest.param("deployment.template.json", "arm64v8", id="arm64v8"),
    pytest.param("deployment.debug.template.json", "amd64", id="amd64, debug"),
]
# The tool has this, and 3.3.9 never calls it: the schema of templates.
VALIDATE_TEMPLATE = """
import sys
from iotedgedev.deploymentmanifest import DeploymentManifest
from iotedgedev.output import Output
manifest = DeploymentManifest(None, Output(), None, sys.argv[1], True)
sys.exit(0 if manifest.validate_deployment_template() else 3)
"""
# The tool's schema of a manifest is weak about $edgeHub: these are those of edgeAgent and edgeHub themselves.
VALIDATE_PARTS = """
import json, sys, urllib.request, jsonschema
content = json.load(open(sys.argv[1]))["modulesContent"]
for part, schema in (("$edgeAgent", "edgeagent-deployment-1.1"), ("$edgeHub", "edgehub-deployment-1.2")):
    loaded = json.load(urllib.request.urlopen(f"https://json.schemastore.org/azure-iot-{schema}.json"))
    jsonschema.Draft4Validator(loaded).validate({part: content[part]})
"""


@pytest.fixture(scope="module")
def tool() -> Path:
    return environment_of(IOTEDGEDEV)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SchemaStore]:
    folder = tmp_path / "store"
    folder.mkdir()
    with schema_store(needs.shared("schemas"), folder) as running:
        yield running


@pytest.fixture
def solution(tmp_path: Path) -> Path:
    return copy_solution(tmp_path / "solution")


def genconfig(
    tool: Path, solution: Path, store: SchemaStore, template: str, platform: str = "amd64"
) -> subprocess.CompletedProcess[str]:
    return run(
        [tool / "iotedgedev", "solution", "genconfig", "-f", template, "-P", platform, "--fail-on-validation-error"],
        solution,
        store.variables,
    )


def change(solution: Path, right: str, wrong: str, template: str = "deployment.template.json") -> None:
    path = solution / template
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong, 1))


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        pytest.param('"restartPolicy": "always"', '"restartPolicy": "allways"', "'allways' is not one of", id="value"),
        pytest.param('"restartPolicy": "always"', '"restartPolcy": "always"', "restartPolicy", id="name"),
        pytest.param('"startupOrder": 1', '"startupOrder": "1"', "is not of type 'integer'", id="type"),
    ],
)
def test_a_broken_template_is_refused(
    tool: Path, solution: Path, store: SchemaStore, right: str, wrong: str, said: str
) -> None:
    change(solution, right, wrong)
    done = genconfig(tool, solution, store, "deployment.template.json")
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert "azure-iot-edge-deployment-2.0.json" in store.served


@pytest.mark.parametrize(("template", "platform"), GENERATED)
def test_it_accepts_our_templates_and_makes_the_manifest_that_we_make(
    tool: Path, solution: Path, store: SchemaStore, template: str, platform: str
) -> None:
    done = genconfig(tool, solution, store, template, platform)
    assert done.returncode == 0, done.stdout + done.stderr
    assert VALIDATED in done.stdout
    assert "skip" not in done.stdout
    assert store.served == ["azure-iot-edge-deployment-2.0.json"]
    ours = generate(solution / template, {}, platform=platform)
    path = solution / "config" / ours.name
    theirs: Any = json.loads(path.read_text())
    assert theirs == ours.manifest
    checked = run([tool / "python", "-c", VALIDATE_PARTS, path], solution, store.variables)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("layer", ["tee-sgx", "second-trusted-app"])
def test_it_makes_the_layers_that_we_make(tool: Path, solution: Path, store: SchemaStore, layer: str) -> None:
    """There is no schema of layers; the tool expands images, variables and createOptions."""
    template = f"deployments/{layer}.template.json"
    done = genconfig(tool, solution, store, template, "arm64v8")
    assert done.returncode == 0, done.stdout + done.stderr
    ours = generate(solution / template, {}, platform="arm64v8")
    theirs: Any = json.loads((solution / "config" / ours.name).read_text())
    assert theirs == ours.manifest


@pytest.mark.parametrize("template", ["deployment.template.json", "deployment.debug.template.json"])
def test_its_schema_of_templates_accepts_ours(tool: Path, solution: Path, store: SchemaStore, template: str) -> None:
    command: list[str | Path] = [tool / "python", "-c", VALIDATE_TEMPLATE, template]
    done = run(command, solution, store.variables)
    assert (done.returncode, "schema validation passed" in done.stdout) == (0, True), done.stdout
    assert "azure-iot-edge-deployment-template-4.0.json" in store.served
    assert "azure-iot-edgeagent-deployment-1.1.json" in store.served
    change(solution, '"priority": 0', '"priority": 10', template)
    refused = run(command, solution, store.variables)
    assert (refused.returncode, "schema error" in refused.stdout) == (3, True), refused.stdout


def test_what_its_schemas_let_pass_is_found_by_ours(tool: Path, solution: Path, store: SchemaStore) -> None:
    """A route without INTO, an image of nothing, a restriction that Docker would ignore: the tool accepts all three."""
    change(solution, "/outputs/* INTO $upstream", "/outputs/* TO $upstream")
    change(solution, "${MODULES.enclave_broker}", "${MODULES.enclave_brokre}")
    change(solution, '"ReadonlyRootfs"', '"ReadOnlyRoot"')
    assert genconfig(tool, solution, store, "deployment.template.json").returncode == 0
    checked = run([sys.executable, "-m", "edgeclave", "deployment", "check"], solution)
    assert checked.returncode == 1
    for code in ("bad-route", "no-such-module", "'ReadOnlyRoot' is not known here"):
        assert code in checked.stdout
