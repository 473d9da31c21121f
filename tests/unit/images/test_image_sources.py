"""What images are made from: Dockerfiles that differ only where they must, lists with hashes, bills of materials."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import grimp
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import edgeclave
from tests.fixtures.builds import REPOSITORY
from tests.fixtures.module_images import MODULES, PLATFORMS

LISTS = {path.parent.name: path for path in REPOSITORY.glob("*/*/requirements.txt")}
BILLS = {path.parent.name: path for path in REPOSITORY.glob("*/*/sbom.cdx.json")}
STARTED_BY_NAME = {"ta_runner": ("edgeclave.enclave",)}
"""What a module starts as a process of its own, so that no import tells of it."""


def dockerfile(module: str, platform: str) -> list[str]:
    return (REPOSITORY / "modules" / module / f"Dockerfile.{platform}").read_text().splitlines()


def pinned(path: Path) -> dict[str, str]:
    """Versions by canonical name."""
    lines = re.findall(r"^([A-Za-z0-9_.-]+)==([^ ]+) \\$", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


def bounds() -> dict[str, Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = map(Requirement, [*project["dependencies"], *extras["module"], *extras["dev"]])
    return {canonicalize_name(one.name): one for one in requirements if one.name != "edgeclave"}


def test_every_list_and_bill_is_looked_at() -> None:
    assert set(LISTS) == {*MODULES, "build", "debug", "source"}
    assert set(BILLS) == {*MODULES, "debug"}


@pytest.mark.parametrize("name", sorted(LISTS))
def test_a_list_has_hashes_for_all_and_keeps_to_the_bounds_of_the_project(name: str) -> None:
    text = LISTS[name].read_text()
    entries = re.split(r"\n(?=[a-z])", text.partition("\n")[2].strip())
    assert len(entries) == len(pinned(LISTS[name]))
    for entry in entries:
        assert re.fullmatch(r"\S+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry
    for package, version in pinned(LISTS[name]).items():
        bound = bounds().get(package)
        assert bound is None or bound.specifier.contains(version), f"{package} {version}: `make lock` renews it"


@pytest.mark.parametrize("name", sorted(LISTS))
def test_a_list_has_what_was_asked_for(name: str) -> None:
    wanted = LISTS[name].with_suffix(".in").read_text().splitlines()
    names = {canonicalize_name(line) for line in wanted if not line.startswith("#")}
    assert names <= set(pinned(LISTS[name])) | set(pinned(LISTS["source"]))


def test_a_package_has_one_version_in_all_images() -> None:
    seen: dict[str, set[str]] = {}
    for path in LISTS.values():
        for package, version in pinned(path).items():
            seen.setdefault(package, set()).add(version)
    assert {package: versions for package, versions in seen.items() if len(versions) > 1} == {}


@pytest.mark.parametrize("name", sorted(BILLS))
def test_a_bill_of_materials_is_valid_and_says_what_the_list_says(name: str) -> None:
    text = BILLS[name].read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    listed = pinned(LISTS[name]) | (pinned(LISTS["source"]) if name in MODULES else {})
    components = {canonicalize_name(one["name"]): one for one in bill["components"]}
    assert {package: one["version"] for package, one in components.items()} == listed
    assert [package for package, one in components.items() if "licenses" not in one] in ([], ["pysocks"])
    assert bill["metadata"]["component"]["version"] == edgeclave.__version__
    root = next(one for one in bill["dependencies"] if one["ref"] == bill["metadata"]["component"]["bom-ref"])
    wanted = [line for line in LISTS[name].with_suffix(".in").read_text().splitlines() if not line.startswith("#")]
    assert len(root["dependsOn"]) == len(wanted)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_dockerfile_for_each_platform_and_says_its_version(module: str, platform: str) -> None:
    image = json.loads((REPOSITORY / "modules" / module / "module.json").read_text())["image"]
    assert image["tag"]["platforms"][platform] == f"./Dockerfile.{platform}"
    assert set(image["tag"]["platforms"]) == set(PLATFORMS)
    assert image["tag"]["version"] == edgeclave.__version__
    assert f"ARG VERSION={edgeclave.__version__}" in dockerfile(module, platform)


@pytest.mark.parametrize("module", MODULES)
def test_the_dockerfile_for_arm64_differs_in_its_platform_only(module: str) -> None:
    def commands(platform: str) -> list[str]:
        return [line for line in dockerfile(module, platform) if not line.startswith(("# ", "ARG BUILD_BASE"))]

    arm = (line.replace(" --platform manylinux2014_aarch64", "") for line in commands("arm64v8"))
    arm = (line.replace("--platform=linux/arm64 ", "").replace("${BUILD_BASE}", "${BASE}") for line in arm)
    assert list(arm) == commands("amd64")


@pytest.mark.parametrize("module", MODULES)
def test_the_dockerfile_for_debugging_adds_the_debugger_only(module: str) -> None:
    plain, debug = dockerfile(module, "amd64"), dockerfile(module, "amd64.debug")
    without = [line.replace(" -r /tmp/debug.txt", "").replace('"/app/deploy/debug/entry.py", ', "") for line in debug]
    without = [line for line in without if not line.startswith(("COPY deploy/debug/", "EXPOSE 5678"))]
    assert without == plain
    assert not [line for line in plain if "debug" in line]


def test_the_dockerfiles_of_the_modules_differ_in_names_and_in_what_is_copied_of_edgeclave() -> None:
    def common(module: str) -> list[str]:
        lines = (line.replace(module, "MODULE") for line in dockerfile(module, "amd64"))
        return [line for line in lines if not line.startswith("COPY edgeclave/") and "image.description" not in line]

    assert common("enclave_broker") == common("ta_runner") == common("sample_analytics")


@pytest.mark.parametrize("module", MODULES)
def test_an_image_has_of_edgeclave_what_its_module_imports(module: str) -> None:
    """By files and folders of the package; ta_runner has whole folders because the runtime digest is over them."""
    graph = grimp.build_graph("edgeclave", *MODULES)
    reached: set[str] = set()
    waiting = [
        one for root in (module, *STARTED_BY_NAME.get(module, ())) for one in graph.find_descendants(root) | {root}
    ]
    waiting.append("edgeclave.edge.health")
    while waiting:
        one = waiting.pop()
        if one not in reached:
            reached.add(one)
            waiting += [*graph.find_modules_directly_imported_by(one), *filter(None, [one.rpartition(".")[0]])]
    parts = {one.split(".")[1] for one in reached if one.startswith("edgeclave.")} | {"__init__"}
    copied = re.findall(
        r"edgeclave/(\w+)", "\n".join(line.partition(" /app")[0] for line in dockerfile(module, "amd64"))
    )
    assert set(copied) == parts
