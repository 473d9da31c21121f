from __future__ import annotations

import datetime
import itertools
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeclave.cose import X5CHAIN, MessageKind, dcbor, generate_key, sha256, sign, spki
from edgeclave.errors import PackageError
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.package import Package, encode_package, read_package
from edgeclave.ta.signature import PACKAGE_SIGNATURE, identity_cbor, sign_package, verify_package

WASM = b"\0asm" + bytes(100)
START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
serials = itertools.count(1)
Key = ec.EllipticCurvePrivateKey


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(*, sign: bool = True, issue: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(sign, False, False, False, False, issue, False, False, False)


def certificate(
    subject: str,
    key: Any,
    issuer: str,
    issuer_key: Any,
    *extensions: x509.ExtensionType,
    ca: bool | None = None,
    path_length: int | None = None,
    hash_algorithm: Any = None,
    days: int = 36500,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(next(serials))
        .not_valid_before(START)
        .not_valid_after(START + datetime.timedelta(days=days))
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(issuer_key, hash_algorithm or hashes.SHA256())


ROOT_KEY, MIDDLE_KEY, LEAF_KEY, OTHER_KEY = (generate_key() for _ in range(4))
ROOT = certificate("root", ROOT_KEY, "root", ROOT_KEY, usage(issue=True), ca=True)
MIDDLE = certificate("middle", MIDDLE_KEY, "root", ROOT_KEY, usage(issue=True), ca=True, path_length=0)
LEAF = certificate("leaf", LEAF_KEY, "middle", MIDDLE_KEY, usage(), ca=False)
DIRECT_LEAF = certificate("leaf", LEAF_KEY, "root", ROOT_KEY)
OTHER_ROOT = certificate("root", OTHER_KEY, "root", OTHER_KEY, ca=True)
WIDE_KEY = ec.generate_private_key(ec.SECP384R1())


def package(manifest: Manifest, key: Key, *chain: x509.Certificate, wasm: bytes = WASM) -> Package:
    """Signed as given: by our own rules where they allow it, else around them."""
    encoded = [one.public_bytes(Encoding.DER) for one in chain]
    header = {X5CHAIN: encoded[0] if len(encoded) == 1 else encoded}
    signature = sign(PACKAGE_SIGNATURE, identity_cbor(manifest, wasm), key, protected=header)
    return read_package(encode_package(wasm, signature, {})[0])


def refusal(signed: Package) -> str:
    with pytest.raises(PackageError) as refused:
        verify_package(signed)
    assert refused.value.advice
    return refused.value.code


@pytest.mark.parametrize(
    ("key", "chain"),
    [
        pytest.param(ROOT_KEY, [ROOT], id="the root itself"),
        pytest.param(LEAF_KEY, [DIRECT_LEAF, ROOT], id="a leaf under the root"),
        pytest.param(LEAF_KEY, [LEAF, MIDDLE, ROOT], id="a leaf under an intermediate"),
    ],
)
def test_a_signed_package_verifies(manifest: Manifest, key: Key, chain: list[x509.Certificate]) -> None:
    signed = read_package(encode_package(WASM, sign_package(manifest, WASM, key, chain), {})[0])
    verified = verify_package(signed)
    assert verified.manifest == manifest
    assert verified.wasm == WASM
    assert verified.digest == signed.digest
    assert verified.chain == tuple(chain)
    assert verified.identity.signer_id == sha256(spki(ROOT_KEY.public_key()))
    assert verified.identity.unique_id == sha256(dcbor(["edgeclave-ta/1", manifest.to_map(), sha256(WASM)]))
    assert (verified.identity.product_id, verified.identity.security_version) == (1, 3)
    assert not verified.identity.debug


def test_the_leaf_does_not_change_who_it_is(manifest: Manifest) -> None:
    by_root = verify_package(package(manifest, ROOT_KEY, ROOT)).identity
    assert verify_package(package(manifest, LEAF_KEY, DIRECT_LEAF, ROOT)).identity == by_root


def test_an_expired_certificate_is_accepted_since_a_tee_has_no_clock(manifest: Manifest) -> None:
    expired = certificate("root", ROOT_KEY, "root", ROOT_KEY, ca=True, days=1)
    assert verify_package(package(manifest, ROOT_KEY, expired))


def leaf(*extensions: x509.ExtensionType, **fields: Any) -> list[x509.Certificate]:
    return [certificate("leaf", LEAF_KEY, "root", ROOT_KEY, *extensions, **fields), ROOT]


def under(
    issuer: x509.Certificate, issuer_key: Any = MIDDLE_KEY, issuer_name: str = "middle"
) -> list[x509.Certificate]:
    return [certificate("leaf", LEAF_KEY, issuer_name, issuer_key), issuer, ROOT]


@pytest.mark.parametrize(
    "chain",
    [
        pytest.param([], id="no certificate"),
        pytest.param([DIRECT_LEAF], id="a leaf without its root"),
        pytest.param([LEAF, MIDDLE], id="a chain without its root"),
        pytest.param([LEAF, ROOT], id="leaf not signed by the next"),
        pytest.param([DIRECT_LEAF, OTHER_ROOT], id="a root of the same name with another key"),
        pytest.param([LEAF, ROOT, MIDDLE], id="reordered"),
        pytest.param([DIRECT_LEAF, ROOT, ROOT], id="the root twice"),
        pytest.param([DIRECT_LEAF, DIRECT_LEAF, ROOT], id="the leaf twice"),
        pytest.param([LEAF, MIDDLE, ROOT, ROOT, ROOT], id="five certificates"),
        pytest.param(under(certificate("middle", MIDDLE_KEY, "root", ROOT_KEY)), id="issuer without constraints"),
        pytest.param(under(certificate("middle", MIDDLE_KEY, "root", ROOT_KEY, ca=False)), id="issuer is no CA"),
        pytest.param(
            under(certificate("middle", MIDDLE_KEY, "root", ROOT_KEY, usage(), ca=True)), id="issuer may not issue"
        ),
        pytest.param(under(MIDDLE, issuer_name="elsewhere"), id="leaf names another issuer"),
        pytest.param(
            [
                certificate("leaf", LEAF_KEY, "second", OTHER_KEY),
                certificate("second", OTHER_KEY, "middle", MIDDLE_KEY, ca=True),
                MIDDLE,
                ROOT,
            ],
            id="longer than the path length allows",
        ),
        pytest.param(
            under(certificate("middle", WIDE_KEY, "root", ROOT_KEY, ca=True), WIDE_KEY), id="issuer on another curve"
        ),
        pytest.param(leaf(hash_algorithm=hashes.SHA512()), id="signed with another hash"),
        pytest.param(leaf(ca=True), id="leaf is a CA"),
        pytest.param(leaf(usage(sign=False, issue=True)), id="leaf may not sign"),
        pytest.param(leaf(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])), id="leaf is for a server"),
        pytest.param(
            leaf(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")), id="unknown and critical"
        ),
        pytest.param(
            leaf(x509.NameConstraints([x509.DNSName("example.com")], None)), id="name constraints, which are critical"
        ),
    ],
)
def test_a_broken_chain_is_refused(manifest: Manifest, chain: list[x509.Certificate]) -> None:
    encoded = [one.public_bytes(Encoding.DER) for one in chain]
    signature = sign(PACKAGE_SIGNATURE, identity_cbor(manifest, WASM), LEAF_KEY, protected={X5CHAIN: encoded})
    assert refusal(read_package(encode_package(WASM, signature, {})[0])) == "bad-signing-chain"
    with pytest.raises(PackageError, match="bad-signing-chain"):
        sign_package(manifest, WASM, LEAF_KEY, chain)


@pytest.mark.parametrize(
    "x5chain",
    [
        pytest.param([ROOT.public_bytes(Encoding.DER)], id="one certificate as an array"),
        pytest.param(ROOT.public_bytes(Encoding.PEM), id="PEM"),
        pytest.param(ROOT.public_bytes(Encoding.DER) + b"\0", id="a trailing byte"),
        pytest.param(b"\x30" * 9000, id="too large"),
        pytest.param([b"", b""], id="empty certificates"),
        pytest.param(["a", "b"], id="text"),
        pytest.param([[1], {}], id="something else"),
        pytest.param(7, id="a number"),
    ],
)
def test_certificates_in_another_form_are_refused(manifest: Manifest, x5chain: object) -> None:
    signature = sign(PACKAGE_SIGNATURE, identity_cbor(manifest, WASM), ROOT_KEY, protected={X5CHAIN: x5chain})
    assert refusal(read_package(encode_package(WASM, signature, {})[0])) == "bad-signing-chain"


def test_no_certificates_at_all(manifest: Manifest) -> None:
    signature = sign(PACKAGE_SIGNATURE, identity_cbor(manifest, WASM), ROOT_KEY)
    assert refusal(read_package(encode_package(WASM, signature, {})[0])) == "bad-signing-chain"


def test_signed_by_another_key_than_the_chain_names(manifest: Manifest) -> None:
    assert refusal(package(manifest, OTHER_KEY, ROOT)) == "bad-signature"
    assert refusal(package(manifest, ROOT_KEY, DIRECT_LEAF, ROOT)) == "bad-signature"
    with pytest.raises(PackageError, match="another key"):
        sign_package(manifest, WASM, OTHER_KEY, [ROOT])


def test_the_signature_of_another_package(manifest: Manifest) -> None:
    one, another = package(manifest, ROOT_KEY, ROOT), package(manifest, ROOT_KEY, ROOT, wasm=WASM + b"\0")
    assert refusal(read_package(encode_package(one.wasm, another.signature, {})[0])) == "wrong-wasm"


@pytest.mark.parametrize(
    "kind",
    [
        MessageKind("application/edgeclave-result+cose", PACKAGE_SIGNATURE.context),
        MessageKind(PACKAGE_SIGNATURE.media_type, "edgeclave/result/1"),
    ],
    ids=["another media type", "another context"],
)
def test_a_message_of_another_kind(manifest: Manifest, kind: MessageKind) -> None:
    header = {X5CHAIN: ROOT.public_bytes(Encoding.DER)}
    signature = sign(kind, identity_cbor(manifest, WASM), ROOT_KEY, protected=header)
    assert refusal(read_package(encode_package(WASM, signature, {})[0])) in ("malformed-signature", "bad-signature")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        pytest.param(lambda m: dcbor(["edgeclave-ta/2", m, sha256(WASM)]), "malformed-signature", id="another format"),
        pytest.param(lambda m: dcbor(["edgeclave-ta/1", m]), "malformed-signature", id="no digest"),
        pytest.param(lambda m: dcbor(["edgeclave-ta/1", m, sha256(WASM), 1]), "malformed-signature", id="more"),
        pytest.param(dcbor, "malformed-signature", id="the manifest alone"),
        pytest.param(lambda m: cbor2.dumps(["edgeclave-ta/1", m, sha256(WASM)]), "malformed-signature", id="unsorted"),
        pytest.param(
            lambda m: dcbor(["edgeclave-ta/1", m, sha256(WASM)]) + b"\0", "malformed-signature", id="trailing"
        ),
        pytest.param(lambda m: b"\xff", "malformed-signature", id="not CBOR"),
        pytest.param(lambda m: b"\x81" * 5000 + b"\x00", "malformed-signature", id="deeply nested"),
        pytest.param(lambda m: b"", "malformed-signature", id="empty"),
        pytest.param(lambda m: dcbor(["edgeclave-ta/1", m, sha256(b"")]), "wrong-wasm", id="digest of another Wasm"),
        pytest.param(
            lambda m: dcbor(["edgeclave-ta/1", m | {"new": 1}, sha256(WASM)]),
            "bad-manifest",
            id="unknown manifest field",
        ),
    ],
)
def test_a_signed_identity_in_another_form(manifest_map: dict[str, Any], payload: Any, code: str) -> None:
    header = {X5CHAIN: ROOT.public_bytes(Encoding.DER)}
    turned = dict(reversed(manifest_map.items()))  # so that only a canonical encoder sorts it
    signature = sign(PACKAGE_SIGNATURE, payload(turned), ROOT_KEY, protected=header)
    assert refusal(read_package(encode_package(WASM, signature, {})[0])) == code


def test_further_header_parameters_are_refused(manifest: Manifest) -> None:
    header = {X5CHAIN: ROOT.public_bytes(Encoding.DER), 4: b"kid"}
    signature = sign(PACKAGE_SIGNATURE, identity_cbor(manifest, WASM), ROOT_KEY, protected=header)
    assert refusal(read_package(encode_package(WASM, signature, {})[0])) == "malformed-signature"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_byte_in_the_signature_is_refused(manifest: Manifest, data: st.DataObject) -> None:
    signed = package(manifest, ROOT_KEY, ROOT)
    position = data.draw(st.integers(0, len(signed.signature) - 1))
    altered = bytearray(signed.signature)
    altered[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PackageError):
        verify_package(replace(signed, signature=bytes(altered)))


@given(st.binary(max_size=500))
def test_any_other_bytes_as_signature_are_refused(signature: bytes) -> None:
    with pytest.raises(PackageError):
        verify_package(Package("sha256:", WASM, sha256(WASM), signature, {}))
