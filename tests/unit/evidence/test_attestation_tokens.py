"""Attestation results as JWT: what is written is read, and every known trick with a token is refused."""

import base64
import datetime
import hashlib
import hmac
import json
from dataclasses import replace

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence import ear, maa
from edgeclave.evidence.amd_certificates import ROOTS
from edgeclave.evidence.anchors import Anchor, PlatformEvidence
from edgeclave.evidence.sev_snp import KIND
from edgeclave.evidence.tokens import PinnedIssuer, TokenSigner
from edgeclave.evidence.verifier import Verifier
from tests.fixtures.amd_hardware import AmdHardware

NOW, HOUR = 1_750_000_000, 3600
ISSUER = "https://verifier.example"


def signer_of(issuer=ISSUER):
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "verifier")])
    begin = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    return TokenSigner(issuer, key, certificate)


SIGNER, OTHER = signer_of(), signer_of()
PINNED = PinnedIssuer.from_jwks(ISSUER, json.dumps(SIGNER.jwks()).encode())
CLAIMS = {"iss": ISSUER, "iat": NOW, "nbf": NOW, "exp": NOW + HOUR, "x-ms-ver": "1.0", "x-ms-attestation-type": "sgx"}
HEADER = {"kid": SIGNER.key_id, "typ": "JWT", "jku": f"{ISSUER}/certs"}


def token(claims=CLAIMS, header=HEADER, key=None, algorithm="RS256"):
    return jwt.encode(claims, key or SIGNER.key, algorithm, headers=header)


def forged(header, claims=CLAIMS, signature=b""):
    """Any header at all, which libraries would not write."""
    parts = [json.dumps(part).encode() for part in (header, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))


def hmac_with_the_public_key(encoding, form):
    secret = SIGNER.key.public_key().public_bytes(encoding, form)
    head = forged({**HEADER, "alg": "HS256"}).rpartition(".")[0]
    signature = hmac.new(secret, head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def refusal(text, *, now=NOW, pinned=PINNED, attestation_type="sgx"):
    with pytest.raises(EvidenceError) as refused:
        maa.read_token(text, pinned, attestation_type=attestation_type, now=now)
    return refused.value.code


def test_a_good_one():
    assert maa.read_token(token(), PINNED, attestation_type="sgx", now=NOW) == CLAIMS


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param(forged({**HEADER, "alg": "none"}), "wrong-token-algorithm", id="alg none"),
        pytest.param(forged({**HEADER, "alg": "None"}), "wrong-token-algorithm", id="alg None"),
        pytest.param(forged({**HEADER, "alg": "RS256"}), "bad-token-signature", id="no signature"),
        pytest.param(
            hmac_with_the_public_key(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            "wrong-token-algorithm",
            id="HS256 with the public key, PEM",
        ),
        pytest.param(
            hmac_with_the_public_key(serialization.Encoding.DER, serialization.PublicFormat.PKCS1),
            "wrong-token-algorithm",
            id="HS256 with the public key, DER",
        ),
        pytest.param(token(algorithm="RS384"), "wrong-token-algorithm", id="RS384"),
        pytest.param(token(algorithm="PS256"), "wrong-token-algorithm", id="PS256"),
        pytest.param(
            token(key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"), "wrong-token-algorithm", id="ES256"
        ),
        pytest.param(token(key=OTHER.key), "bad-token-signature", id="another key under the pinned name"),
        pytest.param(token(header={**HEADER, "kid": OTHER.key_id}), "unknown-token-key", id="a name nobody pinned"),
        pytest.param(token(header={"typ": "JWT"}), "unknown-token-key", id="no name"),
        pytest.param(
            token(header={**HEADER, "jwk": OTHER.jwks()["keys"][0]}, key=OTHER.key), "embedded-key", id="embedded jwk"
        ),
        pytest.param(token(header={**HEADER, "x5c": OTHER.jwks()["keys"][0]["x5c"]}), "embedded-key", id="x5c"),
        pytest.param(token(header={**HEADER, "x5u": "https://evil.example/c"}), "embedded-key", id="x5u"),
        pytest.param(token(header={**HEADER, "jku": "https://evil.example/certs"}), "embedded-key", id="jku elsewhere"),
        pytest.param(token(header={**HEADER, "typ": "eat+jwt"}), "wrong-token-kind", id="another kind of token"),
        pytest.param(token({**CLAIMS, "iss": "https://evil.example"}), "wrong-issuer", id="another issuer"),
        pytest.param(token({**CLAIMS, "iss": ISSUER + "/"}), "wrong-issuer", id="almost the issuer"),
        pytest.param(token({k: v for k, v in CLAIMS.items() if k != "iss"}), "wrong-issuer", id="no issuer"),
        pytest.param(token({k: v for k, v in CLAIMS.items() if k != "exp"}), "malformed-token", id="no exp"),
        pytest.param(token({k: v for k, v in CLAIMS.items() if k != "nbf"}), "malformed-token", id="no nbf"),
        pytest.param(token({**CLAIMS, "exp": NOW + 0.5}), "malformed-token", id="a time with a fraction"),
        pytest.param(token({**CLAIMS, "exp": "never"}), "malformed-token", id="a time as text"),
        pytest.param(token({**CLAIMS, "exp": True}), "malformed-token", id="a time as a truth"),
        pytest.param(token({**CLAIMS, "x-ms-ver": "2.0"}), "malformed-token", id="another version"),
        pytest.param(
            token({**CLAIMS, "x-ms-attestation-type": "sevsnpvm"}), "wrong-attestation-type", id="another platform"
        ),
        pytest.param("", "malformed-token", id="nothing"),
        pytest.param("a.b", "malformed-token", id="two parts"),
        pytest.param("é.é.é", "malformed-token", id="no ASCII"),
        pytest.param(token() + ".x", "malformed-token", id="four parts"),
        pytest.param("x" * (65 << 10), "malformed-token", id="far too long"),
        pytest.param(forged([]), "malformed-token", id="a list as header"),
    ],
)
def test_tricks(text, code):
    assert refusal(text) == code


def test_an_extension_that_must_be_understood():
    header = {**HEADER, "alg": "RS256", "crit": ["b64"], "b64": False}
    assert refusal(forged(header)) in ("embedded-key", "malformed-token")


@pytest.mark.parametrize(
    ("now", "code"),
    [(NOW - 1, "token-not-yet-valid"), (NOW, None), (NOW + HOUR - 1, None), (NOW + HOUR, "token-expired")],
)
def test_time_in_both_directions(now, code):
    if code is None:
        maa.read_token(token(), PINNED, attestation_type="sgx", now=now)
    else:
        assert refusal(token(), now=now) == code


def test_every_changed_character():
    good = token()
    for place in range(len(good)):
        changed = good[:place] + ("A" if good[place] != "A" else "B") + good[place + 1 :]
        refusal(changed)


class TestKeySets:
    def test_a_set_of_certificates_only(self):
        """As Microsoft publishes it."""
        (key,) = SIGNER.jwks()["keys"]
        only = {name: key[name] for name in ("kty", "kid", "x5c")}
        pinned = PinnedIssuer.from_jwks(ISSUER, json.dumps({"keys": [only]}).encode())
        assert maa.read_token(token(), pinned, attestation_type="sgx", now=NOW)

    @pytest.mark.parametrize(
        "jwks",
        [
            b"",
            b"{}",
            b"[]",
            b'{"keys": []}',
            b'{"keys": [{"kty": "RSA"}]}',
            b'{"keys": [{"kty": "RSA", "kid": "a", "x5c": ["AAAA"]}]}',
            b'{"keys": [{"kty": "RSA", "kid": "a", "n": "AQ", "e": "AQAB"}]}',
            b'{"keys": [{"kty": "oct", "kid": "a", "k": "AAAA"}]}',
            json.dumps({"keys": SIGNER.jwks()["keys"] * 2}).encode(),
            json.dumps({"keys": SIGNER.jwks()["keys"], "padding": "x" * (300 << 10)}).encode(),
        ],
        ids=["nothing", "empty", "a list", "no key", "no name", "no certificate", "1 bit", "secret", "twice", "long"],
    )
    def test_what_is_none(self, jwks):
        with pytest.raises(ConfigurationError, match="bad-jwks"):
            PinnedIssuer.from_jwks(ISSUER, jwks)


class TestMaa:
    HARDWARE = AmdHardware()

    def platform(self, **changes):
        """As if it were AMD's root, for there is no such token for anything else."""
        found = KIND.verify(
            self.HARDWARE.report(hashlib.sha256(b'{"a": 1}').digest() + bytes(32)),
            self.HARDWARE.endorsements(),
            [self.HARDWARE.anchor()],
            NOW,
        )
        anchor = Anchor("sev-snp", "sev-snp", ROOTS["amd-milan-root"], name="amd-milan-root")
        return replace(found, **{"anchor": anchor, **changes})

    def make(self, platform, **changes):
        return maa.make_token(SIGNER, platform, policy=b"policy", now=NOW, lifetime_seconds=HOUR, **changes)

    def test_sev_snp(self):
        text = self.make(self.platform(), runtime_data=b'{"a": 1}')
        claims = maa.read_token(text, PINNED, attestation_type="sevsnpvm", now=NOW)
        assert claims["x-ms-sevsnpvm-launchmeasurement"] == "6d" * 48
        assert claims["x-ms-sevsnpvm-microcode-svn"] == 0x73
        assert claims["x-ms-sevsnpvm-is-debuggable"] is False
        assert claims["x-ms-runtime"] == {"a": 1}
        assert claims["x-ms-policy-hash"] == base64.urlsafe_b64encode(hashlib.sha256(b"policy").digest())[:-1].decode()

    def test_sgx(self):
        runtime = {"mrenclave": b"e" * 32, "mrsigner": b"s" * 32, "isvprodid": 1, "isvsvn": 2}
        data = hashlib.sha256(b"data").digest() + bytes(32)
        platform = PlatformEvidence(Anchor("sgx", "sgx", bytes(32), name="intel"), b"p", runtime, data, False)
        text = self.make(platform, runtime_data=b"data")
        claims = maa.read_token(text, PINNED, attestation_type="sgx", now=NOW)
        assert claims["x-ms-sgx-mrenclave"] == "65" * 32
        assert (claims["x-ms-sgx-product-id"], claims["x-ms-sgx-svn"]) == (1, 2)
        assert claims["x-ms-sgx-ehd"] == "ZGF0YQ"
        assert len({self.make(platform) for _ in range(3)}) == 3  # jti

    def test_runtime_data_of_someone_else(self):
        with pytest.raises(EvidenceError, match="wrong-runtime-data"):
            self.make(self.platform(), runtime_data=b'{"a": 2}')

    @pytest.mark.parametrize(
        "anchor",
        [
            AmdHardware().anchor(),
            Anchor("sev-snp", "emulated", bytes(32)),
            Anchor("tpm", "boot-attested", bytes(32)),
            Anchor("emulator", "emulated", bytes(32)),
        ],
        ids=["test root", "emulated", "TPM", "emulator"],
    )
    def test_there_is_none_for_what_is_no_tee(self, anchor):
        with pytest.raises(EvidenceError, match="no-such-token"):
            self.make(self.platform(anchor=anchor))


class TestEar:
    @pytest.fixture
    def result(self, platform):
        return Verifier(platform.policy()).verify(platform.evidence(), nonce=b"nonce-of-16-byte", now=NOW)

    def make(self, result):
        return ear.make_ear(SIGNER, result, nonce=b"nonce-of-16-byte", now=NOW, lifetime_seconds=HOUR)

    def test_what_is_written_is_read(self, result):
        claims = ear.read_ear(self.make(result), PINNED, now=NOW)
        assert claims["edgeclave.unique-id"] == result.identity.unique_id.hex()
        assert claims["edgeclave.platform-class"] == "emulated"
        assert claims["ear.status"] == "contraindicated"

    @pytest.mark.parametrize(
        ("platform_class", "status"),
        [
            ("sgx", "affirming"),
            ("tdx", "affirming"),
            ("sev-snp", "affirming"),
            ("optee-device", "affirming"),
            ("shared-guest", "warning"),
            ("boot-attested", "warning"),
            ("emulated", "contraindicated"),
        ],
    )
    def test_status_of_every_class(self, result, platform_class, status):
        anchor = replace(result.anchor, platform_class=platform_class)
        claims = ear.read_ear(self.make(replace(result, anchor=anchor)), PINNED, now=NOW)
        assert claims["ear.status"] == status

    def test_a_test_root_and_debug_are_never_affirmed(self, result):
        anchor = replace(result.anchor, platform_class="sgx")
        tee = replace(result, anchor=anchor)
        tested = replace(tee, anchor=replace(anchor, test=True))
        debugged = replace(tee, identity=replace(result.identity, debug=True))
        for each in (tested, debugged):
            assert ear.read_ear(self.make(each), PINNED, now=NOW)["ear.status"] == "contraindicated"

    def test_neither_kind_of_token_is_taken_for_the_other(self, result):
        assert refusal(self.make(result)) == "wrong-token-kind"
        with pytest.raises(EvidenceError, match="wrong-token-kind"):
            ear.read_ear(token(), PINNED, now=NOW)

    @pytest.mark.parametrize("claims", [{}, {"submods": []}, {"submods": {"trusted-app": {}}}])
    def test_what_is_none(self, claims):
        text = SIGNER.sign(
            {"iat": NOW, "nbf": NOW, "exp": NOW + HOUR, "eat_profile": ear.PROFILE, **claims}, typ=ear.TYP
        )
        with pytest.raises(EvidenceError, match="malformed-token"):
            ear.read_ear(text, PINNED, now=NOW)
