"""The unmodified ProvisioningDeviceClient, and the device client of what it provisioned."""

import asyncio
import base64
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.iot.device import X509, exceptions
from azure.iot.device.aio import IoTHubDeviceClient, ProvisioningDeviceClient
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.protocol.models import Configuration, ConfigurationContent  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.policies import PROVISIONING_OWNER, policy_key
from edgeclave.simulator.provisioning.registration import derived_key
from edgeclave.simulator.sas import make_token
from edgeclave.simulator.settings import DPS_HOST, ID_SCOPE, Settings

KEY = base64.b64encode(b"individual key of thirty-two byt").decode()
GROUP_KEY = base64.b64encode(b"group key of some thirty-two by.").decode()
Request = Callable[..., Awaitable[tuple[int, Any]]]
AuthorityPair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


@pytest.fixture
def settings(simulator: SimulatorThread) -> Settings:
    return simulator.call(lambda running: running.settings)


@pytest.fixture
async def request_dps(simulator: SimulatorThread, settings: Settings) -> AsyncIterator[Request]:
    """The service API as its REST documentation shows it; there is no maintained SDK for it in Python."""
    context = ssl.create_default_context(cafile=simulator.ca_file)
    base = f"https://{settings.address}:{settings.ports.https}"
    token = make_token(settings.address, policy_key(settings.owner_key, PROVISIONING_OWNER), policy=PROVISIONING_OWNER)
    async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(ssl=context)) as session:

        async def request(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
            headers = {"Authorization": token, **headers}
            url = f"{path}?api-version=2021-10-01"
            async with session.request(method, url, json=body, headers=headers) as answer:
                text = await answer.text()
                return answer.status, await answer.json() if text else None

        yield request


@pytest.fixture
def through_proxy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that lead the SDK's fixed ports to the simulator, as for modules."""
    monkeypatch.setenv("mqtt_proxy", settings.proxy_url)


def by_key(simulator: SimulatorThread, registration_id: str, key: str, scope: str = ID_SCOPE) -> Any:
    return ProvisioningDeviceClient.create_from_symmetric_key(
        provisioning_host=DPS_HOST,
        registration_id=registration_id,
        id_scope=scope,
        symmetric_key=key,
        server_verification_cert=Path(simulator.ca_file).read_text(),
    )


def symmetric(key: str, **members: Any) -> dict[str, Any]:
    return {"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": key}}, **members}


async def device_client(simulator: SimulatorThread, hub: str, device_id: str, key: str) -> Any:
    client = IoTHubDeviceClient.create_from_symmetric_key(
        symmetric_key=key,
        hostname=hub,
        device_id=device_id,
        server_verification_cert=Path(simulator.ca_file).read_text(),
        connection_retry=False,
    )
    await client.connect()  # type: ignore[no-untyped-call]
    return client


@pytest.mark.usefixtures("through_proxy")
async def test_an_individual_enrolment_becomes_a_device_that_connects(
    simulator: SimulatorThread, request_dps: Request, registry: IoTHubRegistryManager
) -> None:
    twin = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 5}}}
    enrolment = symmetric(KEY, deviceId="pump-1", initialTwin=twin)
    status, shown = await request_dps("PUT", "/enrollments/reg-1", enrolment)
    assert status == 200
    assert "symmetricKey" not in shown["attestation"]
    result = await by_key(simulator, "reg-1", KEY).register()
    assert (result.status, result.registration_state.device_id) == ("assigned", "pump-1")
    client = await device_client(simulator, result.registration_state.assigned_hub, "pump-1", KEY)
    assert (await client.get_twin())["desired"] == {"interval": 5, "$version": 2}
    await client.shutdown()
    stored = await asyncio.to_thread(registry.get_twin, "pump-1")
    assert stored.tags == {"site": "north"}
    status, state = await request_dps("GET", "/registrations/reg-1")
    assert (status, state["deviceId"], state["status"]) == (200, "pump-1", "assigned")


@pytest.mark.usefixtures("through_proxy")
async def test_registering_again_keeps_the_twin_and_the_status(
    simulator: SimulatorThread, request_dps: Request, registry: IoTHubRegistryManager
) -> None:
    await request_dps("PUT", "/enrollments/reg-1", symmetric(KEY, initialTwin={"tags": {"n": 1}}))
    await by_key(simulator, "reg-1", KEY).register()
    twin = await asyncio.to_thread(registry.get_twin, "reg-1")
    twin.tags = {"n": 2}
    await asyncio.to_thread(registry.update_twin, "reg-1", twin, twin.etag)
    device = await asyncio.to_thread(registry.get_device, "reg-1")
    keys = device.authentication.symmetric_key
    await asyncio.to_thread(
        registry.update_device_with_sas, "reg-1", "*", keys.primary_key, keys.secondary_key, "disabled"
    )
    await by_key(simulator, "reg-1", KEY).register()
    twin = await asyncio.to_thread(registry.get_twin, "reg-1")
    assert (twin.tags, twin.status) == ({"n": 2}, "disabled")


@pytest.mark.usefixtures("through_proxy")
async def test_a_device_of_a_group_gets_its_layered_deployment(
    simulator: SimulatorThread,
    request_dps: Request,
    registry: IoTHubRegistryManager,
    configurations: IoTHubConfigurationManager,
) -> None:
    """The whole way: derived key, initial tags, target condition, base and layer, the module's desired properties."""
    base = {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {"ta_runner": {}}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
        "ta_runner": {"properties.desired": {"trusted_apps": {}}},
    }
    layer = {
        "$edgeAgent": {"properties.desired.modules.analytics": {"version": "1.0"}},
        "ta_runner": {"properties.desired.trusted_apps.anomaly": {"digest": "aa"}},
        "analytics": {"properties.desired": {"window": 5}},
    }
    for name, content, priority in (("base", base, 1), ("layer", layer, 10)):
        configuration = Configuration(
            id=name,
            content=ConfigurationContent(modules_content=content),
            target_condition="tags.role = 'press'",
            priority=priority,
        )
        await asyncio.to_thread(configurations.create_configuration, configuration)
    enrolment = symmetric(GROUP_KEY, initialTwin={"tags": {"role": "press"}}, capabilities={"iotEdge": True})
    assert (await request_dps("PUT", "/enrollmentGroups/presses", enrolment))[0] == 200
    result = await by_key(simulator, "press-7", derived_key(GROUP_KEY, "press-7")).register()
    assert (result.status, result.registration_state.device_id) == ("assigned", "press-7")
    agent = await asyncio.to_thread(registry.get_module_twin, "press-7", "$edgeAgent")
    assert agent.properties.desired["modules"] == {"ta_runner": {}, "analytics": {"version": "1.0"}}
    runner = await asyncio.to_thread(registry.get_module_twin, "press-7", "ta_runner")
    assert runner.properties.desired["trusted_apps"] == {"anomaly": {"digest": "aa"}}
    analytics = await asyncio.to_thread(registry.get_module_twin, "press-7", "analytics")
    assert analytics.properties.desired["window"] == 5
    assert (await request_dps("POST", "/registrations/presses/query"))[1][0]["deviceId"] == "press-7"


def certificate_of(name: str, issuer: AuthorityPair | None = None, *, authority: bool = False) -> AuthorityPair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    return certificate, key


def pem_of(pair: AuthorityPair) -> str:
    return pair[0].public_bytes(serialization.Encoding.PEM).decode()


def files_of(folder: Path, pair: AuthorityPair) -> X509:
    (folder / "device.pem").write_text(pem_of(pair))
    (folder / "device.key").write_bytes(
        pair[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return X509(str(folder / "device.pem"), str(folder / "device.key"))  # type: ignore[no-untyped-call]


def by_certificate(simulator: SimulatorThread, registration_id: str, files: X509, **options: Any) -> Any:
    return ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=DPS_HOST,
        registration_id=registration_id,
        id_scope=ID_SCOPE,
        x509=files,
        server_verification_cert=Path(simulator.ca_file).read_text(),
        **options,
    )


@pytest.mark.usefixtures("through_proxy")
@pytest.mark.parametrize("websockets", [False, True], ids=["MQTT", "MQTT over WebSocket"])
async def test_certificates_of_a_device_and_of_its_maker(
    simulator: SimulatorThread, request_dps: Request, tmp_path: Path, websockets: bool
) -> None:
    own, maker = certificate_of("alone"), certificate_of("the maker", authority=True)
    attestation = {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": pem_of(own)}}}}
    assert (await request_dps("PUT", "/enrollments/alone", {"attestation": attestation}))[0] == 200
    attestation = {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": pem_of(maker)}}}}
    assert (await request_dps("PUT", "/enrollmentGroups/made", {"attestation": attestation}))[0] == 200
    for name, pair in (("alone", own), ("made-1", certificate_of("made-1", maker))):
        files = files_of(tmp_path, pair)
        result = await by_certificate(simulator, name, files, websockets=websockets).register()
        assert (result.status, result.registration_state.device_id) == ("assigned", name)
        client = IoTHubDeviceClient.create_from_x509_certificate(
            x509=files,
            hostname=result.registration_state.assigned_hub,
            device_id=name,
            server_verification_cert=Path(simulator.ca_file).read_text(),
            websockets=websockets,
        )
        await client.connect()  # type: ignore[no-untyped-call]
        assert (await client.get_twin())["reported"] == {"$version": 1}  # type: ignore[no-untyped-call]
        await client.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("through_proxy")
@pytest.mark.parametrize(
    ("common_name", "signed_by_maker"),
    [
        pytest.param("stranger", False, id="an unknown certificate"),
        pytest.param("another", True, id="the certificate of another device"),
    ],
)
async def test_other_certificates_are_refused(
    simulator: SimulatorThread, request_dps: Request, tmp_path: Path, common_name: str, signed_by_maker: bool
) -> None:
    maker = certificate_of("the maker", authority=True)
    attestation = {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": pem_of(maker)}}}}
    await request_dps("PUT", "/enrollmentGroups/made", {"attestation": attestation})
    files = files_of(tmp_path, certificate_of(common_name, maker if signed_by_maker else None))
    with pytest.raises(exceptions.ClientError):
        await asyncio.wait_for(by_certificate(simulator, "wanted", files).register(), 20)


@pytest.mark.usefixtures("through_proxy")
@pytest.mark.parametrize(
    ("registration_id", "key", "scope", "change"),
    [
        pytest.param("reg-1", GROUP_KEY, ID_SCOPE, {}, id="another key"),
        pytest.param("reg-2", KEY, ID_SCOPE, {}, id="no enrolment"),
        pytest.param("reg-1", KEY, "0ne00000000", {}, id="another id scope"),
        pytest.param("reg-1", KEY, ID_SCOPE, {"provisioningStatus": "disabled"}, id="a disabled enrolment"),
    ],
)
async def test_who_is_not_enrolled_is_refused(
    simulator: SimulatorThread,
    request_dps: Request,
    registration_id: str,
    key: str,
    scope: str,
    change: dict[str, Any],
) -> None:
    await request_dps("PUT", "/enrollments/reg-1", symmetric(KEY, **change))
    with pytest.raises(exceptions.CredentialError):
        await asyncio.wait_for(by_key(simulator, registration_id, key, scope).register(), 20)
    assert simulator.call(lambda running: len(running.hub.identities.devices())) == 1


@pytest.mark.parametrize(
    ("body", "where"),
    [
        pytest.param({}, "attestation", id="no attestation"),
        pytest.param({"attestation": {"type": "tpm"}}, "attestation.type", id="TPM"),
        pytest.param(symmetric("short"), "primaryKey", id="a key that is none"),
        pytest.param({"attestation": {"type": "x509", "x509": {}}}, "x509", id="no certificate"),
        pytest.param(symmetric(KEY, initialTwin={"tags": {"a b": 1}}), "initialTwin.tags", id="a bad tag"),
        pytest.param(symmetric(KEY, initialTwin=[]), None, id="an empty list is no twin"),
        pytest.param(symmetric(KEY, provisioningStatus="on"), "provisioningStatus", id="an unknown status"),
    ],
)
async def test_bad_enrolments_are_refused_with_the_place(request_dps: Request, body: Any, where: str | None) -> None:
    status, answer = await request_dps("PUT", "/enrollments/reg-1", body)
    if where is None:
        assert status == 200
    else:
        assert status == 400
        assert where in answer["Message"]


async def test_enrolments_have_etags(request_dps: Request) -> None:
    _status, first = await request_dps("PUT", "/enrollments/reg-1", symmetric(KEY))
    assert (await request_dps("PUT", "/enrollments/reg-1", symmetric(KEY)))[0] == 409
    status, second = await request_dps("PUT", "/enrollments/reg-1", symmetric(KEY), **{"If-Match": first["etag"]})
    assert status == 200
    assert (await request_dps("DELETE", "/enrollments/reg-1", **{"If-Match": first["etag"]}))[0] == 412
    assert (await request_dps("POST", "/enrollments/query", {"query": "SELECT * FROM enrollments"}))[1] == [second]
    status, keys = await request_dps("POST", "/enrollments/reg-1/attestationmechanism")
    assert keys["symmetricKey"]["primaryKey"] == KEY
    assert (await request_dps("DELETE", "/enrollments/reg-1", **{"If-Match": second["etag"]}))[0] == 204
    assert (await request_dps("GET", "/enrollments/reg-1"))[0] == 404


async def test_enrolments_and_their_certificates_survive_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, maker = tmp_path / "again", certificate_of("the maker", authority=True)
    attestation = {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": pem_of(maker)}}}}
    with SimulatorThread(state) as first:
        first.call(lambda running: running.iot_hub.enrolments.put("made", {"attestation": attestation}, is_group=True))
    files = files_of(tmp_path, certificate_of("made-1", maker))
    for _ in range(2):  # the second time it is registered already, by another process
        with SimulatorThread(state) as later:
            monkeypatch.setenv("mqtt_proxy", later.call(lambda running: running.settings.proxy_url))
            result = await by_certificate(later, "made-1", files).register()
            assert (result.status, result.registration_state.device_id) == ("assigned", "made-1")
