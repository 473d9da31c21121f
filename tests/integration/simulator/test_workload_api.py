"""The workload API on its unix sockets, well used and badly."""

import base64
import datetime
import os
import socket
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests_unixsocket
from cryptography import x509

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.sas import sign

VERSION = {"api-version": "2020-07-07"}


class Workload:
    """One module's view of its socket."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.path = environment["IOTEDGE_WORKLOADURI"].removeprefix("unix://")
        self._base = f"http+unix://{quote(self.path, safe='')}"
        self._session = requests_unixsocket.Session()
        self.module = f"/modules/{environment['IOTEDGE_MODULEID']}"
        self.generation = f"{self.module}/genid/{environment['IOTEDGE_MODULEGENERATIONID']}"

    def get(self, path: str, **parameters: str) -> tuple[int, Any]:
        answer = self._session.get(self._base + path, params=parameters or VERSION)
        return answer.status_code, answer.json()

    def post(self, path: str, body: object = None, data: bytes | None = None) -> tuple[int, Any]:
        answer = self._session.post(self._base + path, params=VERSION, json=body, data=data)
        return answer.status_code, answer.json()


@pytest.fixture
def workload(simulator: SimulatorThread) -> Workload:
    return Workload(simulator.environment("worker"))


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_sign(simulator: SimulatorThread, workload: Workload) -> None:
    body = {"keyId": "primary", "algo": "HMACSHA256", "data": encode(b"data")}
    status, answer = workload.post(f"{workload.generation}/sign", body)
    key = simulator.call(lambda running: running.state.module("worker").primary_key)
    assert (status, base64.b64decode(answer["digest"])) == (200, sign(key, b"data"))


def test_encrypt_and_decrypt(simulator: SimulatorThread, workload: Workload) -> None:
    vector = encode(b"iv")
    _, answer = workload.post(
        f"{workload.generation}/encrypt", {"plaintext": encode(b"secret"), "initializationVector": vector}
    )
    sealed = {"ciphertext": answer["ciphertext"], "initializationVector": vector}
    assert workload.post(f"{workload.generation}/decrypt", sealed) == (200, {"plaintext": encode(b"secret")})
    other = Workload(simulator.environment("other"))
    assert other.post(f"{other.generation}/decrypt", sealed)[0] == 400
    assert workload.post(f"{workload.generation}/decrypt", {**sealed, "initializationVector": encode(b"x")})[0] == 400


def test_server_certificate(workload: Workload) -> None:
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    status, answer = workload.post(
        f"{workload.generation}/certificate/server", {"commonName": "gw.local", "expiration": expires.isoformat()}
    )
    leaf, issuer = x509.load_pem_x509_certificates(answer["certificate"].encode())
    leaf.verify_directly_issued_by(issuer)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert (status, answer["privateKey"]["type"]) == (201, "key")
    assert names.get_values_for_type(x509.DNSName) == ["gw.local", "worker"]
    assert abs(leaf.not_valid_after_utc - expires) < datetime.timedelta(seconds=2)


def test_identity_certificate(workload: Workload) -> None:
    status, answer = workload.post(f"{workload.module}/certificate/identity")
    leaf = x509.load_pem_x509_certificates(answer["certificate"].encode())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert status == 201
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "azureiot://edgeclave-sim.azure-devices.test/devices/edge01/modules/worker"
    ]


def test_trust_bundle_and_modules(simulator: SimulatorThread, workload: Workload) -> None:
    assert workload.get("/trust-bundle") == (200, {"certificate": Path(simulator.ca_file).read_text()})
    assert workload.get("/manifest-trust-bundle")[0] == 404
    status, answer = workload.get("/modules")
    assert (status, [module["name"] for module in answer["modules"]]) == (200, ["edgeAgent", "edgeHub", "worker"])


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("/modules/other/genid/1/sign", {"data": ""}, 403, id="another module"),
        pytest.param("/modules/worker/genid/1/sign", {"data": ""}, 403, id="another generation"),
        pytest.param("/modules/nobody/certificate/identity", {}, 403, id="unknown module"),
        pytest.param("{generation}/sign", {}, 400, id="no data"),
        pytest.param("{generation}/sign", {"data": "!"}, 400, id="not base64"),
        pytest.param("{generation}/sign", {"data": "", "algo": "MD5"}, 400, id="another algorithm"),
        pytest.param("{generation}/decrypt", {"ciphertext": "YQ==", "initializationVector": ""}, 400, id="too short"),
        pytest.param("{generation}/certificate/server", {"commonName": "a b"}, 400, id="common name with a space"),
        pytest.param("{generation}/certificate/server", {"commonName": ""}, 400, id="empty common name"),
        pytest.param(
            "{generation}/certificate/server", {"commonName": "a", "expiration": "2001-01-01T00:00:00Z"}, 400, id="past"
        ),
        pytest.param("/nothing", {}, 404, id="unknown path"),
    ],
)
def test_refusals_have_a_message(
    simulator: SimulatorThread, workload: Workload, path: str, body: object, status: int
) -> None:
    simulator.environment("other")
    answered, answer = workload.post(path.format(generation=workload.generation), body)
    assert answered == status
    assert answer["message"]


def test_malformed_requests_are_refused_and_the_socket_goes_on(workload: Workload) -> None:
    assert workload.post(f"{workload.generation}/sign", data=b"{")[0] == 400
    assert workload.post(f"{workload.generation}/sign", data=b"x" * (2 << 20))[0] == 413
    assert workload.get("/trust-bundle", **{"api-version": "1999-01-01"})[0] == 400
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(workload.path)
        raw.sendall(b"\x00\xff garbage\r\n\r\n")
        assert b"400" in raw.recv(1000)
    assert workload.get("/trust-bundle")[0] == 200


def test_sockets_are_private_and_go_with_their_module(simulator: SimulatorThread, workload: Workload) -> None:
    path = Path(workload.path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.stat().st_uid == os.getuid()
    name = simulator.call(lambda running: running.state.module("worker").name)
    simulator.call(lambda running: running.hub.identities.delete(name))
    simulator.call(lambda running: running.state.store.commit())
    assert not path.exists()
