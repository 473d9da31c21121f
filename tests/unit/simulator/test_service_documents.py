"""Whatever JSON services send as configuration, enrolment or message: stored, or refused with 400, never a crash."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeclave.simulator.cloud_to_device import Command
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.policies import POLICIES, Right, policy_key, require
from edgeclave.simulator.rest.access import right_for
from edgeclave.simulator.simulator import Simulator

KEY = "ZGV2aWNlIGtleSBvZiB0aGlydHktdHdvIGJ5dGVz"
MANY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
names = st.sampled_from(
    ["content", "modulesContent", "deviceContent", "moduleContent", "$edgeAgent", "$edgeHub", "properties.desired",
     "properties.desired.a", "targetCondition", "priority", "metrics", "queries", "attestation", "type", "symmetricKey",
     "primaryKey", "x509", "clientCertificates", "primary", "certificate", "initialTwin", "tags", "properties",
     "desired", "modules", "routes", "capabilities", "iotEdge", "provisioningStatus"]
)  # fmt: skip
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["symmetricKey", "x509", "*", KEY])
)
documents = st.dictionaries(
    names,
    st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
    ),
    max_size=6,
)


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    made = Simulator(tmp_path / "sim")
    yield made
    made.state.close()


@MANY
@given(document=documents)
def test_any_configuration_is_stored_or_refused(simulator: Simulator, document: dict[str, Any]) -> None:
    configurations = simulator.iot_hub.configurations
    try:
        configurations.put("c", document)
    except HubError as error:
        assert error.status == 400  # noqa: PT017 - both outcomes are right
        return
    simulator.state.store.commit()
    configurations.metrics(configurations.get("c"))
    configurations.views(of_modules=True)
    configurations.delete("c", if_match="*")
    simulator.state.store.commit()


@MANY
@given(document=documents)
def test_any_enrolment_is_stored_or_refused(simulator: Simulator, document: dict[str, Any]) -> None:
    enrolments = simulator.iot_hub.enrolments
    for is_group in (False, True):
        try:
            made = enrolments.put("e", document, is_group=is_group)
        except HubError as error:
            assert error.status == 400  # noqa: PT017 - both outcomes are right
            continue
        assert made.enabled in (True, False)
        with pytest.raises(HubError):
            simulator.iot_hub.registrations.admit("scope", "e", "SharedAccessSignature sr=x", [])
        enrolments.delete("e", is_group=is_group, if_match="*")


@MANY
@given(
    properties=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4),
    message_id=st.text(max_size=140),
    expires=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_message_is_queued_or_refused(
    simulator: Simulator, properties: dict[str, str], message_id: str, expires: float | None
) -> None:
    name = IdentityName("leaf")
    if simulator.hub.identities.find(name) is None:
        simulator.hub.identities.create(name)
    command = Command("leaf", b"x", properties, {"$.mid": message_id}, expires)
    try:
        simulator.iot_hub.commands.send(command)
    except HubError as error:
        assert error.status == 400  # noqa: PT017 - both outcomes are right
        return
    waits = expires is None or expires > time.time()
    assert simulator.iot_hub.commands.purge("leaf") == waits


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        pytest.param("GET", "/devices/d", Right.REGISTRY_READ, id="read the registry"),
        pytest.param("PUT", "/devices/d/modules/m", Right.REGISTRY_WRITE, id="make a module"),
        pytest.param("POST", "/devices", Right.REGISTRY_WRITE, id="many devices"),
        pytest.param("POST", "/devices/query", Right.SERVICE_CONNECT, id="query"),
        pytest.param("GET", "/twins/d", Right.SERVICE_CONNECT, id="twin"),
        pytest.param("POST", "/twins/d/methods", Right.SERVICE_CONNECT, id="method"),
        pytest.param("DELETE", "/devices/d/commands", Right.SERVICE_CONNECT, id="purge"),
        pytest.param("GET", "/messages/serviceBound/feedback", Right.SERVICE_CONNECT, id="feedback"),
        pytest.param("GET", "/configurations/c", Right.REGISTRY_READ, id="read a configuration"),
        pytest.param(
            "PUT", "/configurations/c", Right.REGISTRY_WRITE | Right.SERVICE_CONNECT, id="make a configuration"
        ),
        pytest.param("PUT", "/enrollments/e", Right.ENROLMENT, id="enrol"),
        pytest.param("DELETE", "/registrations/r", Right.ENROLMENT, id="forget a registration"),
    ],
)
def test_what_a_request_needs(method: str, path: str, right: Right) -> None:
    assert right_for(method, path) == right


def test_policies_have_keys_of_their_own_and_no_more_rights_than_they_say() -> None:
    assert len({policy_key(KEY, policy) for policy in POLICIES}) == len(POLICIES)
    require("iothubowner", Right.REGISTRY_WRITE | Right.SERVICE_CONNECT)
    with pytest.raises(HubError, match="SERVICE_CONNECT"):
        require("registryReadWrite", Right.REGISTRY_WRITE | Right.SERVICE_CONNECT)
    with pytest.raises(HubError, match="no policy"):
        policy_key(KEY, "root")
