"""A template as people write it, with each mistake they make."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeclave.deployment import generate
from edgeclave.errors import ConfigurationError

Document = dict[str, Any]
COMMA_TOO_MANY = "line 2, column 8" if sys.version_info >= (3, 13) else "line 3, column 1"
"""The comma, or what comes after it."""

MODULE: Document = {
    "version": "1.0",
    "type": "docker",
    "status": "running",
    "restartPolicy": "always",
    "settings": {"image": "${MODULES.worker}", "createOptions": {"HostConfig": {"Memory": 1}}},
}
TEMPLATE: Document = {
    "$schema-template": "4.0.0",
    "modulesContent": {
        "$edgeAgent": {
            "properties.desired": {
                "schemaVersion": "1.1",
                "runtime": {"type": "docker", "settings": {}},
                "systemModules": {
                    "edgeAgent": {"type": "docker", "settings": {"image": "agent:1.5"}},
                    "edgeHub": {
                        "type": "docker",
                        "status": "running",
                        "restartPolicy": "always",
                        "settings": {"image": "hub:1.5"},
                    },
                },
                "modules": {"worker": MODULE},
            }
        },
        "$edgeHub": {
            "properties.desired": {
                "schemaVersion": "1.2",
                "routes": {"up": "FROM /messages/* INTO $upstream"},
                "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
            }
        },
        "worker": {"properties.desired": {"level": "$LEVEL", "mode": "${MODE}"}},
    },
}
MODULE_JSON: Document = {
    "$schema-version": "0.0.1",
    "description": "",
    "image": {
        "repository": "$REGISTRY/worker",
        "tag": {"version": "0.1.0", "platforms": {"amd64": "./Dockerfile.amd64", "amd64.debug": "./Dockerfile.debug"}},
        "buildOptions": [],
        "contextPath": ".",
    },
    "language": "python",
}


@pytest.fixture
def solution(tmp_path: Path) -> Path:
    (tmp_path / "modules/worker").mkdir(parents=True)
    (tmp_path / "modules/worker/module.json").write_text(json.dumps(MODULE_JSON))
    (tmp_path / ".env").write_text("# comment\nREGISTRY=localhost:5000\nexport LEVEL='7'\nMODE=\n\n")
    return tmp_path


def write(solution: Path, document: Document | None = None) -> Path:
    path = solution / "deployment.template.json"
    path.write_text(json.dumps(TEMPLATE if document is None else document, indent=2))
    return path


def agent(document: Document) -> Document:
    desired: Document = document["modulesContent"]["$edgeAgent"]["properties.desired"]
    return desired


def test_the_manifest(solution: Path) -> None:
    deployment = generate(write(solution), {})
    modules = deployment.manifest["modulesContent"]
    settings = modules["$edgeAgent"]["properties.desired"]["modules"]["worker"]["settings"]
    assert settings == {
        "image": "localhost:5000/worker:0.1.0-amd64",
        "createOptions": '{"HostConfig":{"Memory":1}}',
    }
    assert modules["worker"]["properties.desired"] == {"level": "7", "mode": ""}
    assert set(deployment.manifest) == {"modulesContent"}
    assert deployment.folders == {"localhost:5000/worker:0.1.0-amd64": solution / "modules/worker"}
    assert deployment.notes == ()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param("${MODULES.worker.debug}", "localhost:5000/worker:0.1.0-amd64.debug", id="debug"),
        pytest.param("${MODULES.worker.amd64}", "localhost:5000/worker:0.1.0-amd64", id="platform by name"),
        pytest.param("${MODULES.worker.amd64.debug}", "localhost:5000/worker:0.1.0-amd64.debug", id="both"),
        pytest.param("${MODULEDIR<./modules/worker>}", "localhost:5000/worker:0.1.0-amd64", id="by folder"),
        pytest.param(
            "${MODULEDIR<modules/worker>.debug}", "localhost:5000/worker:0.1.0-amd64.debug", id="folder, debug"
        ),
        pytest.param("mcr.microsoft.com/x:1", "mcr.microsoft.com/x:1", id="an image of someone else"),
    ],
)
def test_images(solution: Path, image: str, expected: str) -> None:
    document = copy.deepcopy(TEMPLATE)
    agent(document)["modules"]["worker"]["settings"]["image"] = image
    content = generate(write(solution, document), {}).manifest["modulesContent"]
    assert content["$edgeAgent"]["properties.desired"]["modules"]["worker"]["settings"]["image"] == expected


def test_the_env_file_comes_before_the_environment(solution: Path) -> None:
    content = generate(write(solution), {"LEVEL": "9", "edgeHub": "x"}).manifest["modulesContent"]
    assert content["worker"]["properties.desired"]["level"] == "7"


def test_undefined_names_stay_and_are_reported(solution: Path) -> None:
    (solution / ".env").write_text("LEVEL=7\n")
    deployment = generate(write(solution), {})
    assert deployment.manifest["modulesContent"]["worker"]["properties.desired"]["mode"] == "${MODE}"
    assert [note.partition(": ")[2].split()[0] for note in deployment.notes] == ["$MODE", "$REGISTRY"]
    assert [note.partition(", ")[0].rpartition("/")[2] for note in deployment.notes] == [
        "deployment.template.json",
        "module.json",
    ]


def test_a_route_into_a_module_that_is_not_deployed_is_noted(solution: Path) -> None:
    document = copy.deepcopy(TEMPLATE)
    routes = document["modulesContent"]["$edgeHub"]["properties.desired"]["routes"]
    routes["in"] = 'FROM /messages/* INTO BrokeredEndpoint("/modules/wroker/inputs/i")'
    (note,) = generate(write(solution, document), {}).notes
    assert "routes.in" in note
    assert "wroker" in note


@pytest.mark.parametrize(
    ("size", "keys"),
    [
        pytest.param(0, ["createOptions"], id="small"),
        pytest.param(600, ["createOptions", "createOptions01"], id="two parts"),
        pytest.param(4060, ["createOptions", *(f"createOptions0{n}" for n in range(1, 8))], id="all eight parts"),
    ],
)
def test_create_options_are_cut_into_512_characters(solution: Path, size: int, keys: list[str]) -> None:
    document = copy.deepcopy(TEMPLATE)
    options = {"Labels": {"x": "y" * size}}
    agent(document)["modules"]["worker"]["settings"]["createOptions"] = options
    content = generate(write(solution, document), {}).manifest["modulesContent"]
    settings = content["$edgeAgent"]["properties.desired"]["modules"]["worker"]["settings"]
    assert sorted(set(settings) - {"image"}) == keys
    assert all(len(settings[key]) <= 512 for key in keys)
    assert json.loads("".join(settings[key] for key in keys)) == options


def rename(old: str, new: str) -> Callable[[Document], None]:
    """Misspells a name wherever it stands in the text."""

    def change(document: Document) -> None:
        text = json.dumps(document).replace(json.dumps(old), json.dumps(new))
        document.clear()
        document.update(json.loads(text))

    return change


def worker(**members: object) -> Callable[[Document], None]:
    return lambda document: agent(document)["modules"]["worker"].update(members)


def drop(*path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        below: Any = document
        for name in path[:-1]:
            below = below[name]
        del below[path[-1]]

    return change


def hub(**members: object) -> Callable[[Document], None]:
    return lambda document: document["modulesContent"]["$edgeHub"]["properties.desired"].update(members)


DESIRED = ("modulesContent", "$edgeAgent", "properties.desired")


@pytest.mark.parametrize(
    ("mistake", "what", "where", "advice"),
    [
        pytest.param(rename("modulesContent", "moduleContent"), "moduleContent", "line 3", "modulesContent", id="top"),
        pytest.param(
            rename("$edgeAgent", "$edgeagent"), "'$edgeAgent' is missing", "modulesContent", "$edgeagent", id="$"
        ),
        pytest.param(
            rename("$edgeHub", "edgeHub"), "'$edgeHub' is missing", "modulesContent", "edgeHub", id="no dollar"
        ),
        pytest.param(
            lambda document: document["modulesContent"].update({"wroker": document["modulesContent"].pop("worker")}),
            "'wroker' is not a module",
            "modulesContent.wroker",
            "'worker'",
            id="module's name in its twin",
        ),
        pytest.param(
            rename("properties.desired", "properties.desierd"),
            "missing",
            "$edgeAgent",
            "properties.desierd",
            id="desired",
        ),
        pytest.param(
            rename("restartPolicy", "restartpolicy"), "restart", "edgeHub.restartpolicy", "restartPolicy", id="case"
        ),
        pytest.param(rename("systemModules", "systemModule"), "systemModule", "properties.desired", "", id="plural"),
        pytest.param(worker(restartPolicy="allways"), "allways", "worker.restartPolicy", "always", id="allways"),
        pytest.param(worker(status="runing"), "runing", "worker.status", "running", id="runing"),
        pytest.param(worker(type="dokcer"), "dokcer", "worker.type", "docker", id="dokcer"),
        pytest.param(worker(startupOrder="1"), "whole number", "worker.startupOrder", "quotes", id="number as text"),
        pytest.param(worker(env={"A": "x"}), "object", "worker.env", "", id="env value without value"),
        pytest.param(worker(env={"A": {"valeu": "x"}}), "valeu", "worker.env.A", "value", id="valeu"),
        pytest.param(worker(settings={"imgae": "x"}), "imgae", "worker.settings", "'image'", id="imgae"),
        pytest.param(worker(settings={"image": ""}), "image", "worker.settings.image", "", id="empty image"),
        pytest.param(
            worker(settings={"image": "x", "createOption": {}}),
            "createOption",
            "settings",
            "'createOptions'",
            id="option",
        ),
        pytest.param(
            worker(settings={"image": "x", "createOptions": "{"}),
            "JSON",
            "settings.createOptions",
            "",
            id="bad options",
        ),
        pytest.param(
            worker(settings={"image": "x", "createOptions": {"x": "y" * 5000}}),
            "4096",
            "createOptions",
            "shorter",
            id="big",
        ),
        pytest.param(
            worker(settings={"image": "${MODULES.wroker}"}),
            "${MODULES.wroker}",
            "template",
            "worker",
            id="module's name",
        ),
        pytest.param(
            worker(settings={"image": "${MODULES.worker.arm64v8}"}), "arm64v8", "settings.image", "amd64", id="platform"
        ),
        pytest.param(
            worker(settings={"image": "${MODULEDIR<./module/worker>}"}), "MODULEDIR", "template", "worker", id="folder"
        ),
        pytest.param(drop(*DESIRED, "runtime"), "runtime", "properties.desired", "", id="runtime forgotten"),
        pytest.param(
            drop(*DESIRED, "systemModules", "edgeHub"), "edgeHub", "systemModules", "", id="edgeHub forgotten"
        ),
        pytest.param(
            lambda d: agent(d)["modules"].update({"a b": MODULE}), "'a b'", "modules.a b", "letters", id="space"
        ),
        pytest.param(lambda d: agent(d).update(modules=[MODULE]), "object", "properties.desired", "", id="array"),
        pytest.param(lambda d: agent(d).update(schemaVersion="2"), "'2'", "schemaVersion", "1.1", id="schema version"),
        pytest.param(hub(routes={"up": "FROM /* TO $upstream"}), "not a route", "routes.up", "INTO", id="route"),
        pytest.param(hub(route={}), "'route'", "$edgeHub.properties.desired", "'routes'", id="route for routes"),
        pytest.param(
            lambda d: d["modulesContent"]["worker"]["properties.desired"].update({"a.b": 1}),
            "'a.b'",
            "modulesContent.worker.properties.desired",
            "dots",
            id="twin name with a dot",
        ),
        pytest.param(
            lambda d: d["modulesContent"].update(worker={"properties.desired": {"x": "y" * 5000}}),
            "4096",
            "desired.x",
            "",
            id="twin value too long",
        ),
        pytest.param(
            lambda d: d["modulesContent"].update(worker=[]), "object", "modulesContent.worker", "", id="twin array"
        ),
        pytest.param(lambda d: d.update({"$schema-template": "9"}), "'9'", "$schema-template", "4.0.0", id="version"),
    ],
)
def test_mistakes(solution: Path, mistake: Callable[[Document], None], what: str, where: str, advice: str) -> None:
    document = copy.deepcopy(TEMPLATE)
    mistake(document)
    with pytest.raises(ConfigurationError) as refused:
        generate(write(solution, document), {})
    assert what in refused.value.what
    assert where in refused.value.where
    assert advice in refused.value.advice


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        pytest.param('{\n "a": 1,\n}', "bad-json", COMMA_TOO_MANY, id="comma too many"),
        pytest.param('{\n "a": 1\n "b": 2}', "bad-json", "line 3, column 2", id="comma forgotten"),
        pytest.param('{\n // note\n "a": 1}', "bad-json", "line 2, column 2", id="comment"),
        pytest.param('{"modulesContent": {"worker": {}, "worker": {}}}', "repeated-name", "line 1", id="name twice"),
        pytest.param("[]", "bad-deployment", "template", id="array"),
        pytest.param("", "bad-json", "line 1", id="empty"),
        pytest.param("[" * 100_000, "bad-json", "template", id="nested without end"),
    ],
)
def test_text_that_is_no_template(solution: Path, text: str, code: str, where: str) -> None:
    path = solution / "deployment.template.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        generate(path, {})
    assert refused.value.code == code
    assert where in refused.value.where


@pytest.mark.parametrize(
    ("file", "text", "code", "where"),
    [
        pytest.param(".env", "A=1\nthis is not it\n", "bad-env-file", "line 2", id="env line without ="),
        pytest.param("modules/worker/module.json", "{", "bad-json", "module.json, line 1", id="module.json cut short"),
        pytest.param(
            "modules/worker/module.json", "{}", "bad-module-json", "module.json", id="module.json without image"
        ),
    ],
)
def test_files_beside_it(solution: Path, file: str, text: str, code: str, where: str) -> None:
    (solution / file).write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        generate(write(solution), {})
    assert refused.value.code == code
    assert where in refused.value.where


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no-such-template"):
        generate(tmp_path / "deployment.template.json", {})


def test_the_manifest_file_is_private(solution: Path) -> None:
    path = generate(write(solution), {}).write(solution / "state")
    assert path == solution / "state/config/deployment.amd64.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "modulesContent" in json.loads(path.read_text())
