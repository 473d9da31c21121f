"""Enrolments of the provisioning service, as its service API takes them."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.provisioning.enrolments import Enrolments
from edgeclave.simulator.store import Store
from tests.fixtures.certificates import Authority


def _in_base64(certificate: x509.Certificate, encoding: Encoding) -> str:
    return base64.b64encode(certificate.public_bytes(encoding)).decode()


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda each: each.public_bytes(Encoding.PEM).decode(), id="PEM"),
        pytest.param(lambda each: _in_base64(each, Encoding.PEM), id="base64 of PEM"),
        pytest.param(lambda each: _in_base64(each, Encoding.DER), id="base64 of DER"),
    ],
)
def test_a_certificate_in_each_encoding(store: Store, tmp_path: Path, given: Callable[[x509.Certificate], str]) -> None:
    certificate = Authority(tmp_path).root
    x509_member = {"signingCertificates": {"primary": {"certificate": given(certificate)}}}
    made = Enrolments(store).put("made", {"attestation": {"type": "x509", "x509": x509_member}}, is_group=True)
    assert made.certificates == [certificate]


@pytest.mark.parametrize(
    "text", ["-----BEGIN CERTIFICATE-----", base64.b64encode(b"-----BEGIN X-----").decode(), "AAAA", "é"]
)
def test_what_is_no_certificate_is_refused(store: Store, text: str) -> None:
    x509_member = {"clientCertificates": {"primary": {"certificate": text}}}
    with pytest.raises(HubError, match="not a certificate"):
        Enrolments(store).put("made", {"attestation": {"type": "x509", "x509": x509_member}}, is_group=False)
