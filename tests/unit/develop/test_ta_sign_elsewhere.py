"""`ta sign` with a key that is not in the key folder: in a PKCS#11 token, or in a signer that is never online."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.cli.main import run
from edgeclave.cose import generate_key, sha256, spki
from edgeclave.develop.external_signature import ToBeSigned
from edgeclave.develop.pkcs11_uri import parse_uri
from edgeclave.errors import ConfigurationError, PackageError
from edgeclave.ta.manifest import Manifest, Method
from edgeclave.ta.package import read_package
from edgeclave.ta.signature import verify_package
from edgeclave.ta.signing import self_signed
from tests.fixtures.needs import tool
from tests.fixtures.softhsm import PIN, Token

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ROOT_KEY = generate_key()
ROOT = self_signed(ROOT_KEY, "release root")
OFFLINE_KEY = generate_key()
ANY_MANIFEST = Manifest(
    name="meter",
    version="1",
    product_id=1,
    security_version=1,
    accept_state_from_svn=1,
    methods={"observe": Method()},
)


def leaf(key: ec.EllipticCurvePublicKey, name: str = "release leaf") -> x509.Certificate:
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(ROOT.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(ROOT_KEY, hashes.SHA256())
    )


def pem(path: Path, *chain: x509.Certificate) -> Path:
    path.write_bytes(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain))
    return path


def test_a_chain_that_is_not_there_is_said_not_to_be(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "sign", project, "--prepare", project / "tbs", "--chain", project / "none.pem")
    assert "it cannot be read: No such file or directory" in said
    (project / "text.pem").write_text("hello")
    said = refusal(capsys, "sign", project, "--prepare", project / "tbs", "--chain", project / "text.pem")
    assert "it is not a PEM file of certificates" in said


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Of the offline signer."""
    return pem(tmp_path / "chain.pem", leaf(OFFLINE_KEY.public_key()), ROOT)


@pytest.fixture
def pin_file(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    path.write_text(PIN + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="session")
def token_key(token: Token) -> ec.EllipticCurvePublicKey:
    """A key with its whole chain on the token, and beside it other keys and certificates."""
    key = token.make_key("ta-signer", b"\x01")
    token.store(leaf(key), b"\x01")
    token.store(ROOT, b"\x02")
    token.store(leaf(generate_key().public_key(), "another leaf"), b"\x03")
    token.make_key("bare", b"\x04")
    token.make_key("wide", b"\x05", curve="secp384r1")
    return key


def refusal(capsys: pytest.CaptureFixture[str], *command: str | Path) -> str:
    """What the command says when it refuses."""
    capsys.readouterr()
    assert run(["ta", *map(str, command)]) == 1
    return capsys.readouterr().err


def digest_of(path: Path) -> bytes:
    digest = path.read_bytes()
    assert len(digest) == 32
    return digest


def offline(path: Path, key: ec.EllipticCurvePrivateKey = OFFLINE_KEY) -> bytes:
    """What an HSM does with the digest; DER."""
    return key.sign(digest_of(path), ec.ECDSA(Prehashed(hashes.SHA256())))


def test_a_token_signs_with_the_chain_it_holds(
    project: Path, token: Token, token_key: Any, pin_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = token.uri("ta-signer", pin_file=pin_file)
    assert run(["ta", "sign", str(project), "--key", uri, "--json"]) == 0
    signed = json.loads(capsys.readouterr().out)
    verified = verify_package(read_package(Path(signed["package"])))
    assert verified.identity.signer_id == sha256(spki(ROOT_KEY.public_key()))
    assert signed["signer_id"] == verified.identity.signer_id.hex()
    assert [one.subject.rfc4514_string() for one in verified.chain] == ["CN=release leaf", "CN=release root"]
    assert PIN not in str(signed)


def test_a_token_signs_with_a_chain_from_a_file_and_a_pin_from_the_environment(
    project: Path, token: Token, token_key: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECLAVE_PKCS11_PIN", PIN)
    monkeypatch.setenv("EDGECLAVE_PKCS11_MODULE", str(token.library))
    chain = pem(tmp_path / "token.pem", leaf(token_key, "newer leaf"), ROOT)
    uri = "pkcs11:token=release;object=ta-signer;type=private;id=%01"
    assert run(["ta", "sign", str(project), "--key", uri, "--chain", str(chain)]) == 0
    verified = verify_package(read_package(project / "build" / "meter.ta"))
    assert verified.chain[0].subject.rfc4514_string() == "CN=newer leaf"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(lambda uri: uri.replace("token=release", "token=elsewhere"), "no-token", id="another token"),
        pytest.param(lambda uri: uri.replace("object=ta-signer", "object=nobody"), "no-token-key", id="no such key"),
        pytest.param(lambda uri: uri.replace("object=ta-signer", "object=bare"), "no-certificate", id="a bare key"),
        pytest.param(lambda uri: uri.replace("libsofthsm2.so", "none.so"), "no-pkcs11-module", id="no library"),
        pytest.param(
            lambda uri: uri.replace("/libsofthsm2.so", "/../os-release"), "token-refused", id="no library at all"
        ),
        pytest.param(lambda uri: uri + "&pin-value=4711", "bad-pkcs11-uri", id="a PIN for everyone to read"),
        pytest.param(lambda uri: uri.replace("object=ta-signer", "colour=red"), "bad-pkcs11-uri", id="unknown name"),
        pytest.param(lambda uri: uri.replace(";object=ta-signer", ""), "bad-pkcs11-uri", id="no key named"),
        pytest.param(lambda uri: uri.replace("pin-source=file:", "pin-source=%7C"), "bad-pkcs11-uri", id="a command"),
        pytest.param(lambda uri: uri.partition("&")[0], "no-pin", id="no PIN and no terminal"),
        pytest.param(lambda uri: uri.partition("&")[0] + "&pin-source=/nowhere", "no-pin", id="no PIN file"),
        pytest.param(lambda uri: "pkcs11:" + "x" * 3000, "bad-pkcs11-uri", id="too long"),
    ],
)
def test_a_token_that_cannot_be_used(
    project: Path,
    token: Token,
    token_key: Any,
    pin_file: Path,
    change: Callable[[str], str],
    code: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EDGECLAVE_PKCS11_PIN", raising=False)
    said = refusal(capsys, "sign", project, "--key", change(token.uri("ta-signer", pin_file=pin_file)))
    assert code in said
    assert PIN not in said
    assert "do:" in said
    assert not (project / "build" / "meter.ta").exists()


def test_a_pin_is_asked_for_at_a_terminal_and_not_shown(
    project: Path, keys: Path, token: Token, token_key: Any, tmp_path: Path
) -> None:
    controller, terminal = pty.openpty()
    command = ["ta", "sign", str(project), "--key", token.uri("ta-signer")]
    with subprocess.Popen(
        [sys.executable, "-m", "edgeclave", *command],
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        start_new_session=True,  # without a controlling terminal the question goes to standard error
        env={name: value for name, value in os.environ.items() if name != "EDGECLAVE_PKCS11_PIN"},
    ) as process:
        os.close(terminal)
        seen = b""
        while b"PIN of token release: " not in seen:
            seen += os.read(controller, 1024)
        os.write(controller, PIN.encode() + b"\n")
        assert process.wait(30) == 0
    with contextlib.suppress(OSError):
        seen += os.read(controller, 1024)
    os.close(controller)
    assert PIN.encode() not in seen
    assert verify_package(read_package(project / "build" / "meter.ta"))


@given(st.text(max_size=60) | st.text(alphabet="tokenbjci=;?&%01/-", max_size=60))
def test_any_uri_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        parse_uri(f"pkcs11:{text}")


@given(signature=st.binary(max_size=80))
def test_no_bytes_pass_for_a_signature(signature: bytes) -> None:
    to_be_signed = ToBeSigned.of(ANY_MANIFEST, b"wasm", [leaf(OFFLINE_KEY.public_key()), ROOT])
    with pytest.raises(PackageError) as refused:
        to_be_signed.finish(signature)
    assert refused.value.code == "signature-does-not-fit"


def test_a_wrong_or_exposed_pin(
    project: Path, token: Token, token_key: Any, pin_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = token.uri("ta-signer", pin_file=pin_file)
    pin_file.write_text("0000")
    assert "bad-pin" in refusal(capsys, "sign", project, "--key", uri)
    pin_file.chmod(0o644)
    assert "chmod 600" in refusal(capsys, "sign", project, "--key", uri)


def test_a_chain_of_another_key_than_the_token_has(
    project: Path, token: Token, token_key: Any, pin_file: Path, chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = token.uri("ta-signer", pin_file=pin_file)
    assert "signature-does-not-fit" in refusal(capsys, "sign", project, "--key", uri, "--chain", chain)
    assert not (project / "build" / "meter.ta").exists()


def prepare(project: Path, chain: Path) -> Path:
    to_be_signed = project / "release.tbs"
    assert run(["ta", "sign", str(project), "--prepare", str(to_be_signed), "--chain", str(chain)]) == 0
    return to_be_signed


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda der: der, id="DER"),
        pytest.param(
            lambda der: b"".join(part.to_bytes(32, "big") for part in decode_dss_signature(der)),
            id="r and s as they are",
        ),
        pytest.param(
            lambda der: encode_dss_signature(decode_dss_signature(der)[0], ORDER - decode_dss_signature(der)[1]),
            id="the other root of the same signature",
        ),
    ],
)
def test_an_offline_signer_signs_the_digest(project: Path, chain: Path, form: Callable[[bytes], bytes]) -> None:
    to_be_signed = prepare(project, chain)
    assert not (project / "build" / "meter.ta").exists()
    described = json.loads((project / "release.tbs.json").read_text())
    signature = project / "release.sig"
    signature.write_bytes(form(offline(to_be_signed)))
    assert run(["ta", "sign", str(project), "--finish", str(signature), "--chain", str(chain)]) == 0
    verified = verify_package(read_package(project / "build" / "meter.ta"))
    assert described["unique_id"] == verified.identity.unique_id.hex()
    assert described["digest"] == digest_of(to_be_signed).hex()
    assert described["signer"] == ["CN=release leaf", "CN=release root"]


def test_openssl_is_an_offline_signer(project: Path, chain: Path, tmp_path: Path) -> None:
    to_be_signed, signature = prepare(project, chain), tmp_path / "release.sig"
    key = tmp_path / "offline.pem"
    key.write_bytes(OFFLINE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    command = [tool("openssl", "openssl"), "pkeyutl", "-sign", "-inkey", key, "-in", to_be_signed, "-out", signature]
    subprocess.run(command, check=True, capture_output=True)
    assert run(["ta", "sign", str(project), "--finish", str(signature), "--chain", str(chain)]) == 0


def another_version(project: Path) -> None:
    text = (project / "ta.toml").read_text()
    (project / "ta.toml").write_text(text.replace("security_version = 2", "security_version = 3"))


def another_wasm(project: Path) -> None:
    path = project / "build" / "meter.wasm"
    path.write_bytes(path.read_bytes() + b"\x00\x02\x01x")  # a custom section: the same code


@pytest.mark.parametrize(
    "change", [pytest.param(another_version, id="another manifest"), pytest.param(another_wasm, id="another Wasm")]
)
def test_a_signature_over_another_unique_id(
    project: Path, chain: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    signature = project / "release.sig"
    signature.write_bytes(offline(prepare(project, chain)))
    change(project)
    said = refusal(capsys, "sign", project, "--finish", signature, "--chain", chain)
    assert "signature-does-not-fit" in said
    assert not (project / "build" / "meter.ta").exists()


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(lambda path: offline(path, generate_key()), id="by another key"),
        pytest.param(lambda path: offline(path)[:-1], id="cut off"),
        pytest.param(lambda path: offline(path) + b"\0", id="with a byte more"),
        pytest.param(lambda path: offline(path).hex().encode(), id="as text"),
        pytest.param(lambda path: b"", id="empty"),
        pytest.param(lambda path: bytes(64), id="zeros"),
        pytest.param(lambda path: encode_dss_signature(ORDER, ORDER), id="out of range"),
        pytest.param(lambda path: path.read_bytes(), id="the digest itself"),
    ],
)
def test_what_is_no_signature_over_this_package(
    project: Path, chain: Path, signature: Callable[[Path], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    path = project / "release.sig"
    path.write_bytes(signature(prepare(project, chain)))
    assert "signature-does-not-fit" in refusal(capsys, "sign", project, "--finish", path, "--chain", chain)
    assert not (project / "build" / "meter.ta").exists()


def test_another_chain_than_the_one_prepared(project: Path, chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signature = project / "release.sig"
    signature.write_bytes(offline(prepare(project, chain)))
    renewed = pem(project / "renewed.pem", leaf(OFFLINE_KEY.public_key()), ROOT)
    assert "signature-does-not-fit" in refusal(capsys, "sign", project, "--finish", signature, "--chain", renewed)


def test_a_chain_that_readers_would_refuse_is_not_sent_to_be_signed(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rootless = pem(tmp_path / "rootless.pem", leaf(OFFLINE_KEY.public_key()))
    said = refusal(capsys, "sign", project, "--prepare", tmp_path / "x.tbs", "--chain", rootless)
    assert "bad-signing-chain" in said
    assert not (tmp_path / "x.tbs").exists()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--prepare", "a", "--finish", "b", "--chain", "c"], id="both steps at once"),
        pytest.param(["--prepare", "a", "--key", "developer", "--chain", "c"], id="offline and by a key here"),
        pytest.param(["--prepare", "a"], id="offline without a chain"),
        pytest.param(["--key", "developer", "--chain", "c"], id="a chain for a key of the folder"),
    ],
)
def test_options_that_contradict_each_other(
    project: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "bad-usage" in refusal(capsys, "sign", project, *options)
