"""Every way to be allowed, and every way not to be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.edge.identity import ModuleIdentity
from edgeclave.edge.twins.access_policy import IOTHUB, Policy
from edgeclave.edge.twins.enclave_broker import read_settings
from edgeclave.errors import ConfigurationError

BROKER = ModuleIdentity("hub.example", "edge01", "enclave_broker")
SAMPLE = "azureiot://hub.example/devices/edge01/modules/sample_analytics"
OTHER = "azureiot://hub.example/devices/edge01/modules/other"
OBSERVE = "invoke:anomaly/observe"

case = pytest.param


def policy(**statements: dict[str, Any]) -> Policy:
    return read_settings({"policy": {"statements": statements}}, BROKER).policy


def allow(*operations: str, identities: list[str] | None = None, **more: Any) -> dict[str, Any]:
    identities = identities or ["{{iot:this_device_id}}/sample_analytics"]
    return {"effect": "allow", "identities": identities, "operations": list(operations), **more}


def deny(*operations: str, **more: Any) -> dict[str, Any]:
    return {**allow(*operations, **more), "effect": "deny"}


@pytest.mark.parametrize(
    ("statements", "identity", "operation", "resource", "statement"),
    [
        case({"a": allow(OBSERVE)}, SAMPLE, OBSERVE, "anomaly", "a", id="exactly named"),
        case({"a": allow("invoke:anomaly/*")}, SAMPLE, OBSERVE, "anomaly", "a", id="any method"),
        case({"a": allow("invoke:anomaly/obs*")}, SAMPLE, OBSERVE, "anomaly", "a", id="method prefix"),
        case({"a": allow("invoke:*/observe")}, SAMPLE, OBSERVE, "anomaly", "a", id="any application"),
        case({"a": allow("invoke:*")}, SAMPLE, OBSERVE, "anomaly", "a", id="short for everything invoked"),
        case({"a": allow("invoke:anomaly*/observe")}, SAMPLE, OBSERVE, "anomaly", "a", id="prefix that is whole"),
        case({"a": allow("evidence:*")}, SAMPLE, "evidence:anomaly", "anomaly", "a", id="evidence of any"),
        case({"a": allow("acknowledge:b")}, SAMPLE, "acknowledge:b", "b", "a", id="acknowledge"),
        case({"a": allow("list")}, SAMPLE, "list", None, "a", id="list"),
        case({"a": allow("list", resources=["anomaly"])}, SAMPLE, "list", None, "a", id="list some"),
        case({"a": allow(OBSERVE, resources=["anom*"])}, SAMPLE, OBSERVE, "anomaly", "a", id="resource prefix"),
        case({"a": allow(OBSERVE, identities=[SAMPLE])}, SAMPLE, OBSERVE, "anomaly", "a", id="full identity"),
        case(
            {"a": allow(OBSERVE, identities=[SAMPLE.replace("hub.example", "HUB.Example")])},
            SAMPLE, OBSERVE, "anomaly", "a", id="the hub's name in capitals",
        ),
        case({"a": allow(OBSERVE, identities=["iothub"])}, IOTHUB, OBSERVE, "anomaly", "a", id="direct method"),
        case({"d": deny("list"), "a": allow(OBSERVE)}, SAMPLE, OBSERVE, "anomaly", "a", id="another thing denied"),
        case(
            {"d": deny("list", resources=["secret"]), "a": allow("list")}, SAMPLE, "list", None, "a",
            id="listing one application denied",
        ),
    ],
)  # fmt: skip
def test_allowed(
    statements: dict[str, Any], identity: str, operation: str, resource: str | None, statement: str
) -> None:
    decision = policy(**statements).decide(identity, operation, resource)
    assert (decision.allowed, decision.statement) == (True, statement)
    assert decision.reason == f"statement {statement!r} allows it"


@pytest.mark.parametrize(
    ("statements", "identity", "operation", "resource", "statement"),
    [
        case({}, SAMPLE, OBSERVE, "anomaly", None, id="no statements at all"),
        case({"a": allow(OBSERVE)}, OTHER, OBSERVE, "anomaly", None, id="another module"),
        case({"a": allow(OBSERVE)}, SAMPLE + "2", OBSERVE, "anomaly", None, id="a module with a longer name"),
        case({"a": allow(OBSERVE)}, SAMPLE.upper(), OBSERVE, "anomaly", None, id="a module in capitals"),
        case({"a": allow(OBSERVE)}, SAMPLE.replace("edge01", "edge02"), OBSERVE, "anomaly", None, id="other device"),
        case({"a": allow(OBSERVE)}, SAMPLE.replace("hub.", "bub."), OBSERVE, "anomaly", None, id="other hub"),
        case({"a": allow(OBSERVE)}, IOTHUB, OBSERVE, "anomaly", None, id="direct method, module allowed"),
        case({"a": allow(OBSERVE, identities=["iothub"])}, SAMPLE, OBSERVE, "anomaly", None, id="only the cloud"),
        case({"a": allow(OBSERVE)}, SAMPLE, "invoke:anomaly/reset", "anomaly", None, id="another method"),
        case({"a": allow(OBSERVE)}, SAMPLE, "invoke:anomaly/observe2", "anomaly", None, id="a longer method"),
        case({"a": allow(OBSERVE)}, SAMPLE, "invoke:anomaly2/observe", "anomaly2", None, id="another application"),
        case({"a": allow("invoke:anomaly/*")}, SAMPLE, "evidence:anomaly", "anomaly", None, id="another kind"),
        case({"a": allow("invoke:*")}, SAMPLE, "list", None, None, id="list is not invoked"),
        case({"a": allow("acknowledge:*")}, SAMPLE, "evidence:anomaly", "anomaly", None, id="kinds do not mix"),
        case({"a": allow("invoke:a/*")}, SAMPLE, "invoke:a.b/x", "a.b", None, id="a dot is part of a name"),
        case({"a": allow("invoke:a.c/x")}, SAMPLE, "invoke:abc/x", "abc", None, id="a dot is not any letter"),
        case({"a": allow(OBSERVE, resources=["other"])}, SAMPLE, OBSERVE, "anomaly", None, id="other resource"),
        case({"d": deny(OBSERVE), "a": allow(OBSERVE)}, SAMPLE, OBSERVE, "anomaly", "d", id="deny first"),
        case({"a": allow(OBSERVE), "d": deny(OBSERVE)}, SAMPLE, OBSERVE, "anomaly", "d", id="deny last"),
        case({"a": allow(OBSERVE), "d": deny("invoke:*")}, SAMPLE, OBSERVE, "anomaly", "d", id="wide deny wins"),
        case(
            {"a": allow("invoke:*"), "d": deny("invoke:*", resources=["anom*"])}, SAMPLE, OBSERVE, "anomaly", "d",
            id="deny by resource",
        ),
        case({"a": allow("list"), "d": deny("list")}, SAMPLE, "list", None, "d", id="list denied wholly"),
        case(
            {"a": allow("list"), "d": deny("list", resources=["secret"])}, SAMPLE, "list", "secret", "d",
            id="one application hidden",
        ),
    ],
)  # fmt: skip
def test_not_allowed(
    statements: dict[str, Any], identity: str, operation: str, resource: str | None, statement: str | None
) -> None:
    decision = policy(**statements).decide(identity, operation, resource)
    assert (decision.allowed, decision.statement) == (False, statement)


@pytest.mark.parametrize(
    ("desired", "code"),
    [
        case({"policies": {}}, "malformed-twin", id="unknown property"),
        case({"policy": {"statement": {}}}, "malformed-twin", id="unknown field of the policy"),
        case({"policy": {"statements": [allow("list")]}}, "malformed-twin", id="statements as a list"),
        case(
            {"policy": {"statements": {"a": {**allow("list"), "effects": 1}}}}, "malformed-twin", id="unknown field"
        ),
        case(
            {"policy": {"statements": {"a": {**allow("list"), "effect": "Allow"}}}}, "malformed-twin", id="wrong effect"
        ),
        case({"policy": {"statements": {"a": allow()}}}, "malformed-twin", id="no operations"),
        case({"policy": {"statements": {"a": allow("list", resources=[])}}}, "malformed-twin", id="no resources"),
        case({"policy": {"statements": {"a": allow(*["list"] * 65)}}}, "malformed-twin", id="too many entries"),
        case({"quotas": {"burst": 0}}, "malformed-twin", id="quota out of range"),
        *(
            case({"policy": {"statements": {"a": allow(text)}}}, "malformed-operation", id=f"operation {text!r}")
            for text in (
                "", "*", "invoke", "invoke:", "invoke:anomaly", "invoke:anomaly*", "invoke:/", "invoke:anomaly/",
                "invoke:/observe", "invoke:a/b/c", "invoke:*a/b", "invoke:a*b/c", "invoke:**/x", "Invoke:a/b", "list:*",
                "list ", "evidence", "evidence:", "evidence:a/b", "acknowledge:a b", "invoke:ä/b", "evidence:a\n",
                "read:a",
            )
        ),
        *(
            case(
                {"policy": {"statements": {"a": allow("list", identities=[text])}}},
                "malformed-identity",
                id=f"identity {text!r}",
            )
            for text in (
                "", "*", "iothub ", "IoTHub", "sample_analytics", "{{iot:this_device_id}}", "{{iot:this_device_id}}/",
                "{{iot:this_device_id}}/a/b", "{{iot:identity}}", "azureiot://hub.example/devices/edge01",
                "azureiot://hub.example/devices/edge01/modules/", "https://hub/devices/d/modules/m", "azureiot:///devices/d/modules/m",
            )
        ),
        *(
            case(
                {"policy": {"statements": {"a": allow("list", resources=[text])}}},
                "malformed-resource",
                id=f"resource {text!r}",
            )
            for text in ("", "a/b", "*a", "a**", "a b")
        ),
    ],
)  # fmt: skip
def test_refused_twins(desired: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(desired, BROKER)
    assert caught.value.code == code
    assert caught.value.advice


def test_error_names_the_statement() -> None:
    with pytest.raises(ConfigurationError) as caught:
        policy(first=allow("list"), second=allow("wrong"))
    assert caught.value.where == "policy.statements.second"


def test_an_empty_twin_allows_nothing() -> None:
    settings = read_settings({}, BROKER)
    assert not settings.policy.decide(SAMPLE, OBSERVE, "anomaly").allowed


def test_cached_decisions_stay_bounded_and_right() -> None:
    decided = policy(a=allow("invoke:anomaly/m1*"))
    for number in range(10_000):
        allowed = decided.decide(SAMPLE, f"invoke:anomaly/m{number}", "anomaly").allowed
        assert allowed == str(number).startswith("1")
    assert len(decided._decisions) <= 4096


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_whatever_is_asked_only_what_is_written_is_allowed(identity: str, operation: str, resource: str) -> None:
    decided = policy(a=allow(OBSERVE))
    assert decided.decide(identity, operation, resource).allowed == ((identity, operation) == (SAMPLE, OBSERVE))


@given(st.dictionaries(st.text(max_size=10), st.recursive(st.text() | st.none(), st.lists, max_leaves=5), min_size=1))
def test_a_twin_of_anything_else_is_one_error(desired: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        read_settings(desired, BROKER)
