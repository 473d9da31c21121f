import datetime
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from edgeclave.errors import ConfigurationError
from edgeclave.simulator.pki import Pki

HOUR = datetime.timedelta(hours=1)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """A TLS handshake in memory; raises ssl.SSLError when the client does not trust the server."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in (near, far):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass


@pytest.mark.parametrize("name", ["edge01-gateway", "127.9.9.1"])
def test_strict_clients_trust_the_server_under_its_names(tmp_path: Path, name: str) -> None:
    pki = Pki(tmp_path)
    client = ssl.create_default_context(cadata=pki.root_pem)
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default
    handshake(pki.server_context(["edge01-gateway", "127.9.9.1"]), client, name)


def test_another_name_is_not_trusted(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    with pytest.raises(ssl.SSLError):
        handshake(pki.server_context(["edge01-gateway"]), ssl.create_default_context(cadata=pki.root_pem), "other")


def test_authorities_are_kept_and_private(tmp_path: Path) -> None:
    first = Pki(tmp_path / "pki").root_pem
    assert Pki(tmp_path / "pki").root_pem == first
    files = list((tmp_path / "pki").iterdir())
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_identity_certificate_names_the_module_as_a_client(tmp_path: Path) -> None:
    uri = "azureiot://hub.test/devices/edge01/modules/m1"
    leaf = x509.load_pem_x509_certificates(Pki(tmp_path).identity_certificate("m1", uri, HOUR).chain.encode())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [uri]
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC) < HOUR


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "-a", "*", "a..b", "ä"])
def test_names_that_cannot_stand_in_a_certificate_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Pki(tmp_path).server_certificate(name, [name], HOUR)


@pytest.mark.parametrize("damage", ["certificate", "key", "other key"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    Pki(tmp_path)
    if damage == "other key":
        (tmp_path / "root-ca.key.pem").write_bytes((tmp_path / "edge-ca.key.pem").read_bytes())
    else:
        (tmp_path / ("root-ca.pem" if damage == "certificate" else "root-ca.key.pem")).write_text("x")
    with pytest.raises(ConfigurationError, match="simulator-pki-unusable") as refused:
        Pki(tmp_path)
    assert refused.value.where.endswith("root-ca.pem")
