"""Who a certificate belongs to: never the common name, never what a module could have asked for."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.edge.identity import IdentityError, ModuleIdentity, check_server_certificate, peer_of, read_peer
from tests.fixtures.certificates import CLIENT, DEVICE, HUB, SERVER, Authority, Leaf, identity

SAMPLE = ModuleIdentity(HUB, DEVICE, "sample_analytics")
URI, DNS = x509.UniformResourceIdentifier, x509.DNSName


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([URI(str(SAMPLE))], id="URI"),
        pytest.param([DNS(f"URI: {SAMPLE}")], id="DNS name as aziot-edged writes it"),
        pytest.param([URI(str(SAMPLE)), DNS(f"URI: {SAMPLE}")], id="both, the same"),
        pytest.param([URI(str(SAMPLE)), DNS("sample"), URI("https://example")], id="beside other names"),
        pytest.param([URI(str(SAMPLE).replace(HUB, HUB.upper()))], id="the hub's name in capitals"),
    ],
)
def test_identity_is_read(authority: Authority, names: list[x509.GeneralName]) -> None:
    leaf = authority.issue("anything", names=names)
    peer = read_peer(leaf.der)
    assert peer.identity == SAMPLE
    assert peer.not_after == leaf.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(lambda a: a.issue(str(SAMPLE)), "no-module-identity", id="only the common name"),
        pytest.param(lambda a: a.issue("x", names=[DNS("sample_analytics")]), "no-module-identity", id="a DNS name"),
        pytest.param(lambda a: a.issue("x", names=[DNS(str(SAMPLE))]), "no-module-identity", id="DNS without URI:"),
        pytest.param(
            lambda a: a.issue("x", names=[x509.RFC822Name(str(SAMPLE))]), "no-module-identity", id="a mail address"
        ),
        pytest.param(
            lambda a: a.issue("x", names=[URI(str(SAMPLE)), URI(identity("other"))]), "ambiguous-identity", id="two"
        ),
        pytest.param(
            lambda a: a.issue("x", names=[URI(str(SAMPLE)), DNS(f"URI: {identity('other')}")]),
            "ambiguous-identity",
            id="two, one as DNS name",
        ),
        pytest.param(
            lambda a: a.issue("x", names=[URI(str(SAMPLE))], usage=None), "not-a-client-certificate", id="no key usage"
        ),
        pytest.param(
            lambda a: a.issue("x", names=[DNS(f"URI: {SAMPLE}"), DNS("evil")], usage=[SERVER]),
            "not-a-client-certificate",
            id="a server certificate for another module's identity as common name",
        ),
        pytest.param(
            lambda a: a.issue("x", names=[URI(str(SAMPLE))], usage=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
            "not-a-client-certificate",
            id="any usage",
        ),
        pytest.param(
            lambda a: a.issue("x", names=[URI(str(SAMPLE) + "/more")]), "malformed-identity", id="more after the module"
        ),
        pytest.param(
            lambda a: a.issue("x", names=[URI("azureiot://hub/devices/edge01")]), "malformed-identity", id="a device"
        ),
        pytest.param(
            lambda a: a.issue("x", names=[URI(str(SAMPLE)), URI("azureiot://x")]), "malformed-identity", id="one right"
        ),
    ],
)
def test_no_identity(authority: Authority, make: Callable[[Authority], Leaf], code: str) -> None:
    with pytest.raises(IdentityError) as caught:
        read_peer(make(authority).der)
    assert caught.value.code == code


def test_no_certificate() -> None:
    with pytest.raises(IdentityError) as caught:
        peer_of(None)
    assert caught.value.code == "no-certificate"


@given(st.binary(max_size=200) | st.just(b"\x30" * 20_000))
def test_bytes_that_are_no_certificate(data: bytes) -> None:
    with pytest.raises(IdentityError) as caught:
        read_peer(data)
    assert caught.value.code == "malformed-certificate"


@given(st.data())
def test_a_damaged_certificate_is_read_or_refused(data: st.DataObject) -> None:
    der = bytearray(_SAMPLE_DER)
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_peer(bytes(der))
    except IdentityError as error:
        assert error.code  # noqa: PT017 - either is right


@given(st.text(max_size=60) | st.builds("azureiot://{}/devices/{}/modules/{}".format, st.text(), st.text(), st.text()))
def test_parse_and_write_agree(text: str) -> None:
    try:
        parsed = ModuleIdentity.parse(text)
    except IdentityError:
        return
    assert ModuleIdentity.parse(str(parsed)) == parsed
    assert str(parsed).lower() == text.lower()
    assert " " not in text
    assert text.isprintable()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        pytest.param([DNS("ta_runner"), DNS("evil")], "also names evil", id="an impostor's, asked for as ta_runner"),
        pytest.param([DNS("ta_runner"), DNS("TA_RUNNER")], "also names TA_RUNNER", id="a module in capitals"),
        pytest.param([DNS("ta_runner"), URI(identity("evil"))], "only DNS name", id="with an identity"),
        pytest.param([DNS("*"), DNS("evil")], "not ta_runner", id="a wildcard"),
        pytest.param([DNS("evil")], "names evil, not ta_runner", id="another module's"),
        pytest.param([DNS("TA_RUNNER")], "not ta_runner", id="another case only"),
        pytest.param([], "only DNS name", id="only the common name"),
    ],
)
def test_wrong_server_certificates(authority: Authority, names: list[x509.GeneralName], reason: str) -> None:
    leaf = authority.issue("ta_runner", names=names, usage=[SERVER])
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        check_server_certificate(leaf.der, "ta_runner")


@pytest.mark.parametrize("names", [["ta_runner"], ["ta_runner", "ta_runner"]])
def test_right_server_certificates(authority: Authority, names: list[str]) -> None:
    check_server_certificate(authority.server(*names).der, "ta_runner")


_SAMPLE_DER = Authority(Path(tempfile.gettempdir())).issue("sample", names=[URI(str(SAMPLE))], usage=[CLIENT]).der
