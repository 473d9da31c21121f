"""A typo in each place a person makes one: which line is named, what is said, what to do.

Each row changes one piece of the project's own template. There must be exactly one finding, on the line of the change.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeclave.deployment import check_deployment
from edgeclave.errors import ConfigurationError
from tests.fixtures.deployment_solution import VARIABLES

TEMPLATE = "deployment.template.json"
NO_ENVIRONMENT: dict[str, str] = {}
case = pytest.param


def mistyped(solution: Path, right: str, wrong: str, file: str = TEMPLATE) -> tuple[Path, int]:
    """The file with the first `right` replaced, and the line where the wrong text ends."""
    path = solution / file
    text = path.read_text()
    assert right in text, "the row no longer fits the template"
    position = text.index(right)
    changed = text[:position] + wrong + text[position + len(right) :]
    path.write_text(changed)
    return path, changed[: position + len(wrong)].count("\n") + 1


def test_the_templates_are_right(solution: Path) -> None:
    files = [*solution.glob("*.template.json"), *solution.glob("deployments/*.template.json")]
    assert len(files) >= 9
    assert [found for file in files for found in check_deployment(file, environment=NO_ENVIRONMENT)] == []


RUNNER = '"image": "${MODULES.ta_runner}",\n              "createOptions": {\n                "HostConfig": {\n'

TYPOS = [
    # text of the template, what a person writes instead, code, what is said, what to do
    case('"modulesContent"', '"moduleContent"', "bad-deployment", "'moduleContent' is not known", "'modulesContent'"),
    case('"$schema-template": "4.0.0"', '"$schema-template": "5.0"', "bad-deployment", "'5.0' is not known", "4.0.0"),
    case('"schemaVersion": "1.1"', '"schemaVersion": "11"', "bad-deployment", "schemaVersion '11'", "1.1"),
    case('"type": "docker"', '"type": "dokcer"', "bad-deployment", "'dokcer' is none of docker", "'docker'"),
    case('"loggingOptions": ""', '"loggingOption": ""', "bad-deployment", "'loggingOption'", "'loggingOptions'"),
    case(
        '"registryCredentials": {}',
        '"registryCredentials": {"r": {"adress": "r.example", "username": "u", "password": "p"}}',
        "bad-deployment",
        "'adress' is not known",
        "'address'",
    ),
    case('"systemModules"', '"systemModule"', "bad-deployment", "'systemModule' is not known", "'systemModules'"),
    case('"edgeHub": {', '"edgehub": {', "bad-deployment", "'edgehub' is not known", "'edgeHub'"),
    case('"status": "running"', '"status": "runing"', "bad-deployment", "'runing' is none of", "'running'"),
    case('"restartPolicy": "always"', '"restartPolicy": "on-fail"', "bad-deployment", "'on-fail'", "'on-failure'"),
    case('"restartPolicy"', '"restartpolicy"', "bad-deployment", "'restartpolicy'", "'restartPolicy'"),
    case('"startupOrder": 1', '"startupOrder": "1"', "bad-deployment", "whole number, not a text", "without quotes"),
    case('"startupOrder": 1', '"startupOrder": -1', "bad-deployment", ">= 0", ""),
    case('"startupOrder": 1', '"startupOrder": true', "bad-deployment", "whole number, not true or false", ""),
    case('"imagePullPolicy": "on-create"', '"imagePullPolicy": "always"', "bad-deployment", "none of on-create", ""),
    case('"version": "0.1.0"', '"version": 0.1', "bad-deployment", "must be a text", "quotes"),
    case(
        '"version": "0.1.0",', '"env": {"LEVEL": "debug"},', "bad-deployment", "must be an object, not a text",
        '"LEVEL": {"value": ...}', id="env without value",
    ),
    case('"version": "0.1.0",', '"env": {"A.B": {"value": "1"}},', "bad-deployment", "'A.B'", "dots"),
    case("${MODULES.ta_runner}", "${MODULES.ta_runer}", "no-such-module", "${MODULES.ta_runer}", "'ta_runner'"),
    case("${MODULES.ta_runner}", "${MODULES.ta_runner.arm32v7}", "no-such-platform", "'arm32v7'", "arm64v8"),
    case("${MODULES.ta_runner}", "${MODULEDIR<./modules/runner>}", "no-such-module", "MODULEDIR", "'ta_runner'"),
    case("${MODULES.ta_runner}", "${MODULE.ta_runner}", "bad-image-name", "placeholders ${MODULES.NAME}", ""),
    case("${MODULES.ta_runner}", "${MODULES.ta_runner", "bad-image-name", "none of", "", id="no brace"),
    case("${MODULES.ta_runner}", "registry.example/TA_Runner:1", "bad-image-name", "has capitals", ""),
    case("${MODULES.ta_runner}", "https://registry.example/r:1", "bad-image-name", "is a URL", "registry/repository"),
    case("${MODULES.ta_runner}", "registry.example/r: 1", "bad-image-name", "has spaces", ""),
    case("${MODULES.ta_runner}", "registry.example/r:1@sha256:12", "bad-image-name", "digest", ""),
    case("${MODULES.ta_runner}", "registry.example/r", "no-image-tag", ":latest", "version"),
    case("${MODULES.ta_runner}", "${REGISTRY}/ta_runner:1", "undefined-variable", "$REGISTRY is not defined", ".env"),
    case('"$ANOMALY_SIGNER"', '"$ANOMALY_SINGER"', "undefined-variable", "$ANOMALY_SINGER", "$ANOMALY_SIGNER?"),
    case('"createOptions"', '"createOption"', "bad-deployment", "'createOption'", "'createOptions'"),
    case('"HostConfig"', '"HostConfg"', "bad-deployment", "'HostConfg'", "'HostConfig'"),
    case('"ReadonlyRootfs"', '"ReadOnlyRootFileSystem"', "bad-deployment", "'ReadOnlyRootFile", "'ReadonlyRootfs'"),
    case('"ReadonlyRootfs": true', '"ReadonlyRootfs": "true"', "bad-deployment", "true or false", "without quotes"),
    case('"ReadonlyRootfs": true', '"Privileged": true', "unsafe-create-options", "root on the device", "Devices"),
    case('"CapDrop": ["ALL"]', '"CapDrop": "ALL"', "bad-deployment", "must be an array", ""),
    case('"CapDrop"', '"CapAdd"', "unsafe-create-options", "IoT Edge strips added capabilities", ""),
    case('["no-new-privileges"]', '["seccomp=unconfined"]', "unsafe-create-options", "takes a protection away", ""),
    case('"Memory": 1073741824', '"Memory": "512m"', "bad-deployment", "whole number, not a text", "without quotes"),
    case('"PidsLimit"', '"PidLimit"', "bad-deployment", "'PidLimit' is not known", "'PidsLimit'"),
    case('"max-file": "3"', '"max-file": 3', "bad-deployment", "must be a text", "quotes", id="log option as number"),
    case('"Type": "volume"', '"Type": "volumes"', "bad-deployment", "'volumes'", "'volume'", id="kind of mount"),
    case('"Source": "edgeclave-runner"', '"Source": "/srv/runner"', "bad-create-options", "is a path", "bind"),
    case(
        '"Type": "volume", "Source": "edgeclave-runner"',
        '"Type": "bind", "Source": "/var/run/docker.sock"',
        "unsafe-create-options",
        "container engine's socket",
        "remove this mount",
    ),
    case('"PidsLimit": 128', '"Binds": ["/:/host"]', "unsafe-create-options", "whole file system", "one folder"),
    case('"PidsLimit": 128', '"Binds": ["/srv"]', "bad-create-options", "is not a bind", "source:/path"),
    case('"PidsLimit": 128', '"Devices": ["/dev/tee0"]', "bad-deployment", "must be an object", "", id="device"),
    case('"PidsLimit": 128', '"NetworkMode": "host"', "unsafe-create-options", "namespace of the host", "remove it"),
    case('"PidsLimit": 128', '"Zswap": 1', "unknown-create-option", "'Zswap' is no option", "ignores it"),
    case('"443/tcp"', '"443/http"', "bad-create-options", "'443/http' is not a port", "8080/tcp"),
    case('"HostPort": "443"', '"HostPort": 443', "bad-deployment", "must be a text", "quotes", id="port as number"),
    case(
        '"PidsLimit": 128', '"PortBindings": {"1/tcp": [{"HostPort": "8883"}]}',
        "port-taken", "8883 is taken by edgeHub", "another HostPort",
    ),
    case("FROM /messages/modules/ta_runner", "FORM /messages/modules/ta_runner", "bad-route", "is not a route", "FROM"),
    case("/outputs/* INTO $upstream", "/outputs/* TO $upstream", "bad-route", "is not a route", "INTO"),
    case("INTO $upstream", "INTO $upsteam", "bad-route", "not a place to send to", "$upstream"),
    case(
        "INTO $upstream", "WHERE level >> 3 INTO $upstream", "bad-condition", "condition", "", id="condition of a route"
    ),
    case("FROM /messages/", "FROM /message/", "route-carries-nothing", "from /message", "/messages"),
    case("ta_runner/outputs/*", "ta_runner/output/*", "route-carries-nothing", "no message", "'outputs'"),
    case("ta_runner/outputs/*", "ta_runner/outputs/evidnce", "route-carries-nothing", "no output", "evidence"),
    case(
        "FROM /messages/modules/ta_runner/", "FROM /messages/modules/ta_runer/",
        "route-of-unknown-module", "'ta_runer'", "'ta_runner'",
    ),
    case(
        "INTO $upstream", 'INTO BrokeredEndpoint(\\"/modules/sample_analytic/inputs/input1\\")',
        "route-of-unknown-module", "'sample_analytic'", "'sample_analytics'",
    ),
    case(
        "INTO $upstream", 'INTO BrokeredEndpoint(\\"/modules/sample_analytics/inputs/input\\")',
        "route-carries-nothing", "no input 'input'", "input1",
    ),
    case('"priority": 0', '"priority": 10', "bad-deployment", "<= 9", ""),
    case('"priority": 0', '"prority": 0', "bad-deployment", "'prority'", "'priority'"),
    case('"timeToLiveSecs": 604800', '"timeToLiveSecs": "7 d"', "bad-deployment", "whole number", "without quotes"),
    case('"evidence": {', '"evi.dence": {', "bad-route", "no dots", ""),
    case('{ "timeToLiveSecs"', '{ "timeToLive"', "bad-deployment", "'timeToLive' is not", "'timeToLiveSecs'"),
    case('"trustedApps"', '"trustedApp"', "bad-deployment", "'trustedApp' is not known", "'trustedApps'"),
    case('"digest"', '"diegst"', "bad-deployment", "'diegst' is not known", "'digest'"),
    case('"$ANOMALY_DIGEST"', '"latest"', "bad-deployment", "sha256: and 64", ""),
    case('"$ANOMALY_DIGEST"', '""', "bad-deployment", "sha256: and 64", "variable in .env"),
    case('"platform": "emulator"', '"platform": 1', "bad-deployment", "must be a text", "quotes"),
    case('"$ANOMALY_RECIPIENTS_SUMMARY"', '"not base64"', "bad-trusted-app", "base64url", "recipients sign"),
    case('"effect": "allow"', '"effect": "alow"', "bad-deployment", "'alow' is none of", "'allow'"),
    case('"statements"', '"statement"', "bad-deployment", "'statement' is not known", "'statements'"),
    case('"identities": ["iothub"]', '"identities": ["iot-hub"]', "malformed-identity", "'iot-hub'", "iothub"),
    case('"identities": ["iothub"]', '"identities": "iothub"', "bad-deployment", "must be an array", ""),
    case('"list", "evidence:*"', '"lists", "evidence:*"', "malformed-operation", "'lists'", "list"),
    case('"invoke:anomaly/observe"', '"invoke:anomaly"', "malformed-operation", "'invoke:anomaly'", "<method>"),
    case('"invoke:anomaly/observe"', '"invoke:anomly/observe"', "policy-names-nothing", "'anomly'", "'anomaly'"),
    case(
        "{{iot:this_device_id}}/sample_analytics", "{{iot:this_device_id}}/sample",
        "policy-names-nothing", "'sample' is no module", "sample_analytics",
    ),
    case('"policy": {', '"quotas": {"burst": 0}, "policy": {', "bad-deployment", ">= 1", "", id="quota"),
    case('"trustedApp": "anomaly"', '"trusted.app": "anomaly"', "bad-deployment", "'trusted.app'", "dots"),
    case('"trustedApp": "anomaly"', f'"note": "{"x" * 5000}"', "bad-deployment", "over 4096 bytes", "", id="long text"),
    case('"trustedApp": "anomaly"', '"x": 9007199254740993', "bad-deployment", "53 bits", "", id="large number"),
    case(
        '"trustedApp": "anomaly",', '"trustedApp": "anomaly",\n        "trustedApp": "anomaly",',
        "repeated-name", "stands twice", "remove one", id="name twice",
    ),
    case('"restartPolicy": "always",', '"restartPolicy": "always"', "bad-json", "not JSON", "comma", id="no comma"),
    case('"properties.desired": {\n        "trustedApp"', '"properties.desird": {\n        "trustedApp"',
         "bad-deployment", "'properties.desird' is not known", "properties.desired", id="properties.desired"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "code", "what", "advice"), TYPOS)
def test_a_typo(solution: Path, right: str, wrong: str, code: str, what: str, advice: str) -> None:
    path, line = mistyped(solution, right, wrong)
    (finding,) = check_deployment(path, environment=NO_ENVIRONMENT)
    assert (finding.file, finding.code) == (str(path), code)
    assert what in finding.what
    assert advice in finding.advice
    if code == "bad-json":  # JSON is wrong where it cannot go on, which is a line later
        assert finding.line == line + 1
    elif "\n" not in right:
        assert finding.line == line
        assert finding.path


@pytest.mark.parametrize(
    ("right", "wrong", "codes"),
    [
        case('"enclave_broker": {', '"enclave broker": {', {"bad-deployment"}, id="name of a module"),
        case(
            '"anomaly": {',
            '"anomaly detector": {',
            {"bad-deployment", "bad-trusted-app-name", "policy-names-nothing"},
            id="name of a trusted application",
        ),
    ],
)
def test_a_name_that_stands_elsewhere_too(solution: Path, right: str, wrong: str, codes: set[str]) -> None:
    path, line = mistyped(solution, right, wrong)
    findings = check_deployment(path, environment=NO_ENVIRONMENT)
    assert {finding.code for finding in findings} == codes
    assert line in {finding.line for finding in findings}
    assert len(findings) > 1


def test_many_typos_are_all_found(solution: Path) -> None:
    for right, wrong in (('"startupOrder": 2', '"startupOrder": "2"'), ("INTO $", "TO $")):
        mistyped(solution, right, wrong)
    path, _ = mistyped(solution, '"PidsLimit": 64', '"PidsLimit": "64"')
    findings = check_deployment(path, environment=NO_ENVIRONMENT)
    assert len(findings) == 3
    assert [finding.line for finding in findings] == sorted(finding.line for finding in findings)


LAYER_TYPOS = [
    ("tee-sgx", "properties.desired.modules.ta_runner", "properties.desired.module.ta_runner", "bad-deployment"),
    ("tee-sgx", '"PathOnHost"', '"PathOnHosts"', "bad-deployment"),
    ("tee-sgx", "tags.tee = 'sgx'", "tags.tee == 'sgx'", "bad-condition"),
    ("tee-sgx", '"priority": 10', '"priority": "10"', "bad-deployment"),
    ("tee-sgx", '"targetCondition"', '"targetConditon"', "bad-deployment"),
    ("tee-sgx", '"id": "edgeclave-tee-sgx"', '"id": "Edgeclave tee"', "bad-deployment"),
    ("second-trusted-app", "desired.trustedApps.", "desired.trustedApp.", "bad-deployment"),
    ("second-trusted-app", '"$SECOND_DIGEST"', '"none"', "bad-deployment"),
    ("second-trusted-app", "policy.statements.", "policy.statement.", "bad-deployment"),
    ("second-trusted-app", '"evidence:second"', '"evidence second"', "malformed-operation"),
    ("second-trusted-app", '"modulesContent"', '"moduleContent"', "bad-deployment"),
    ("simulated-sensor", "INTO Brokered", "IN Brokered", "bad-route"),
    ("simulated-sensor", "properties.desired.routes.sensor", "properties.desired.route.sensor", "bad-deployment"),
    ("simulated-sensor", "properties.desired.source", "properties..source", "bad-deployment"),
]


@pytest.mark.parametrize(("layer", "right", "wrong", "code"), LAYER_TYPOS)
def test_a_typo_in_a_layer(solution: Path, layer: str, right: str, wrong: str, code: str) -> None:
    path, line = mistyped(solution, right, wrong, f"deployments/{layer}.template.json")
    (finding,) = check_deployment(path, environment=NO_ENVIRONMENT)
    assert (finding.code, finding.severity) == (code, "error")
    assert abs(finding.line - line) <= 1  # 'modulesContent' is missing in `content`, which begins a line before


def test_a_layer_at_the_top_of_the_file(solution: Path) -> None:
    path = solution / "deployments/tee-sgx.template.json"
    path.write_text(json.dumps(json.loads(path.read_text())["content"], indent=2))
    said = [finding.what + finding.advice for finding in check_deployment(path, environment=NO_ENVIRONMENT)]
    assert any('into "content"' in each for each in said)


@pytest.mark.parametrize(("right", "wrong"), [('"$edgeHub"', '"edgeHub"'), ('"$edgeAgent"', '"$edgeagent"')])
def test_a_misspelt_system_module(solution: Path, right: str, wrong: str) -> None:
    path, _line = mistyped(solution, right, wrong)
    (finding,) = [each for each in check_deployment(path, environment=NO_ENVIRONMENT) if right[1:-1] in each.what]
    assert f"{right[1:-1]}' is missing" in finding.what
    assert wrong[1:-1] in finding.advice


def test_a_layer_gives_parts_of_an_entry(solution: Path) -> None:
    path = solution / "deployments/second-trusted-app.template.json"
    document = json.loads(path.read_text())
    document["content"]["modulesContent"] = {
        "ta_runner": {"properties.desired.trustedApps.anomaly.platform": "sgx"},
        "enclave_broker": {
            "properties.desired.quotas.burst": 10,
            "properties.desired.policy.statements.sample-observes.effect": "deny",
        },
    }
    path.write_text(json.dumps(document))
    assert check_deployment(path, environment=NO_ENVIRONMENT) == []
    document["content"]["modulesContent"]["ta_runner"] = {"properties.desired.trustedApps.anomaly.plattform": "sgx"}
    path.write_text(json.dumps(document))
    (finding,) = check_deployment(path, environment=NO_ENVIRONMENT)
    assert "'platform'" in finding.advice


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        case({"createOptions": "{", "createOptions02": "}"}, "createOptions02 is there without createOptions01"),
        case({"createOptions": '{"Labels":{"x":"' + "y" * 600, "createOptions01": '"}}'}, "at most 512"),
        case({"createOptions": "{", "createOptions01": "{"}, "does not hold JSON"),
        case({"createOptions": "[]"}, "does not hold an object"),
        case({"createOptions": {"Labels": {"x": "y" * 5000}}}, "the limit is 4096"),
        case({"createOptions": {}, "createOptions01": "{}"}, "must be an object, or a string"),
        case({"createOptions": '{"HostConfig":', "createOptions01": '{"Privileged":true}}'}, "root on the device"),
        case({"createOptions": '{"HostConfg":{}}'}, "'HostConfg' is not known"),
        case({"createoption01": "{}"}, "'createoption01' is not known"),
    ],
)
def test_create_options_in_parts(solution: Path, settings: dict[str, object], what: str) -> None:
    path = solution / TEMPLATE
    document = json.loads(path.read_text())
    module = document["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]["enclave_broker"]
    module["settings"] = {"image": module["settings"]["image"], **settings}
    path.write_text(json.dumps(document, indent=2))
    (finding,) = check_deployment(path, environment=NO_ENVIRONMENT)
    assert what in finding.what


def test_a_twin_that_is_too_large(solution: Path) -> None:
    path = solution / TEMPLATE
    document = json.loads(path.read_text())
    twin = document["modulesContent"]["sample_analytics"]["properties.desired"]
    twin["rows"] = {f"row{number}": "x" * 4000 for number in range(9)}
    path.write_text(json.dumps(document, indent=2))
    (finding,) = check_deployment(path, environment=NO_ENVIRONMENT)
    assert (finding.code, "32768" in finding.what) == ("twin-too-large", True)


@pytest.mark.parametrize(
    ("file", "text", "code", "line"),
    [
        case(".env", "A=1\nB 2\n", "bad-env-file", 2, id="line of .env"),
        case("modules/ta_runner/module.json", '{\n "image": \n}', "bad-json", 3, id="module.json that is no JSON"),
        case("modules/ta_runner/module.json", "{}", "bad-module-json", 0, id="module.json without an image"),
    ],
)
def test_files_beside_it(solution: Path, file: str, text: str, code: str, line: int) -> None:
    (solution / file).write_text(text)
    (finding,) = check_deployment(solution / TEMPLATE, environment=VARIABLES)
    assert (finding.code, finding.file, finding.line) == (code, str(solution / file), line)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "deployment.template.json").write_text(" \n")
    (finding,) = check_deployment(tmp_path / "deployment.template.json")
    assert (finding.code, finding.what, finding.line) == ("bad-json", "the file is empty", 1)


def test_a_variable_outside_quotes(solution: Path) -> None:
    path, line = mistyped(solution, '"startupOrder": 1', '"startupOrder": $RUNNER_ORDER')
    (finding,) = check_deployment(path, environment=NO_ENVIRONMENT)
    assert (finding.code, finding.line, "define RUNNER_ORDER" in finding.advice) == ("bad-json", line, True)
    assert check_deployment(path, environment={"RUNNER_ORDER": "1"}) == []


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b" " * ((1 << 20) + 1)])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / TEMPLATE
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        check_deployment(path)
