"""The unmodified client of Microsoft Azure Attestation against the verifier service, over TLS."""

from __future__ import annotations

import ipaddress
import json
import time

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.security.attestation import AttestationClient
from cryptography import x509

from edgeclave.cloud.verifier_service.keyring import new_key, now_utc
from edgeclave.evidence import maa
from edgeclave.evidence.endorsements import store
from edgeclave.evidence.intel import read_collateral
from edgeclave.evidence.tokens import PinnedIssuer
from tests.fixtures.benches import IntelBench
from tests.fixtures.certificates import SERVER, Authority
from tests.fixtures.evidence_bench import NONCE, NOW
from tests.fixtures.real_vectors import real_vector
from tests.fixtures.verifier_service import serving, stand_in_files

REAL_TIME = 1_752_919_000
REAL_POLICY = """
classes = ["sgx"]
[[anchors]]
kind = "sgx"
class = "sgx"
root = "intel-sgx-root"
[[runtime.sgx]]
mrenclave = "{mrenclave}"
[[tcb.sgx]]
status = "ConfigurationAndSWHardeningNeeded"
until = 2027-01-01
advisories = ["INTEL-SA-00289", "INTEL-SA-00615"]
[[trusted_apps]]
unique_id = "{zeros}"
"""


class Credential:
    """The service asks for none; the client cannot do without one."""

    def get_token(self, *_scopes, **_options):
        return AccessToken("local", int(time.time()) + 3600)


def tls(folder):
    authority = Authority(folder)
    leaf = authority.issue(names=[x509.IPAddress(ipaddress.ip_address("127.0.0.1"))], usage=(SERVER,))
    (folder / "tls.pem").write_bytes(leaf.pem)
    ca = folder / "ca.pem"
    from cryptography.hazmat.primitives.serialization import Encoding

    ca.write_bytes(authority.root.public_bytes(Encoding.PEM))
    return ["--tls-certificate", "tls.pem", "--tls-key", "tls.pem"], str(ca)


def client_of(url, ca):
    return AttestationClient(url, Credential(), connection_verify=ca, issuer=url, validate_issuer=True)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    quote = real_vector("intel/sgx_quote")
    (collateral,) = read_collateral(real_vector("intel/sgx_quote_collateral.json"))
    store(folder / "endorsements", collateral)
    (folder / "policy.toml").write_text(REAL_POLICY.format(mrenclave=quote[112:144].hex(), zeros="0" * 64))
    for name in ("old", "new"):
        new_key(folder / "keys", name, now_utc())
    options, ca = tls(folder)
    with serving(folder, *options, "--at", str(REAL_TIME)) as (url, _):
        yield folder, quote, url, ca


def test_a_real_quote(real):
    folder, quote, url, ca = real
    client = client_of(url, ca)
    result, token = client.attest_sgx_enclave(quote)
    assert (result.issuer, result.version, result.is_debuggable) == (url, "1.0", False)
    assert result.mr_enclave == quote[112:144].hex()
    assert len(client.get_signing_certificates()) == 2
    assert client.get_open_id_metadata()["issuer"] == url
    # and as a relying party of ours would read it
    from edgeclave.cloud.verifier_service.keyring import load_keyring

    pinned = PinnedIssuer.from_jwks(url, json.dumps(load_keyring(folder / "keys", url).jwks()).encode())
    claims = maa.read_token(token.to_jwt_string(), pinned, attestation_type="sgx", now=int(time.time()))
    assert claims["x-edgeclave-appraised-as-of"] == REAL_TIME


def flipped(quote, position):
    return quote[:position] + bytes([quote[position] ^ 1]) + quote[position + 1 :]


@pytest.mark.parametrize(
    ("change", "options", "code"),
    [
        pytest.param(lambda quote: flipped(quote, 112), {}, "bad-quote-signature", id="one bit of MRENCLAVE"),
        pytest.param(lambda quote: quote[:-1], {}, "malformed-quote", id="cut short"),
        pytest.param(lambda quote: quote + b"\0", {}, "malformed-quote", id="a byte more"),
        pytest.param(lambda quote: b"hello", {}, "malformed-quote", id="no quote"),
        pytest.param(lambda quote: quote, {"runtime_data": b"other"}, "wrong-runtime-data", id="other runtime data"),
        pytest.param(lambda quote: quote, {"draft_policy": "version=1.0;"}, "not-supported", id="a draft policy"),
        pytest.param(lambda quote: quote, {"inittime_data": b"x"}, "not-supported", id="init time data"),
        pytest.param(lambda quote: bytes(100_000), {}, "body-too-large", id="far too long"),
    ],
)
def test_what_is_refused(real, change, options, code):
    _, quote, url, ca = real
    with pytest.raises(HttpResponseError) as refused:
        client_of(url, ca).attest_sgx_enclave(change(quote), **options)
    assert refused.value.error.code == code


def test_stand_in_hardware_gets_no_such_token(tmp_path):
    """The form has no word for it; the client shows the code and the reason."""
    bench = IntelBench("sgx", 3)
    stand_in_files(tmp_path, bench)
    new_key(tmp_path / "keys", "one", now_utc())
    options, ca = tls(tmp_path)
    with serving(tmp_path, *options, "--at", str(NOW)) as (url, _), pytest.raises(HttpResponseError) as refused:
        client_of(url, ca).attest_sgx_enclave(bench.quote(NONCE.ljust(64, b"\0")))
    assert refused.value.error.code == "no-such-token"
