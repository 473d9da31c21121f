"""`edgeclave verify TOKEN`: tokens of the form of Microsoft Azure Attestation and EAR, under a pinned issuer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from edgeclave.cli.main import run
from edgeclave.cloud.verifier_service.keyring import load_keyring, new_key
from edgeclave.errors import EvidenceError
from edgeclave.evidence import maa
from edgeclave.evidence.anchors import Anchor, PlatformEvidence
from edgeclave.evidence.ear import make_ear, make_platform_ear
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.sgx import KIND
from edgeclave.evidence.verifier import Verifier
from tests.fixtures.benches import EmulatorBench
from tests.fixtures.evidence_bench import IDENTITY, NONCE, NOW, Instance

ISSUER = "https://shared.example.attest.azure.net"
ENCLAVE = b"e" * 32
POLICY = """
classes = {classes}
debug = {debug}
freshness = "{freshness}"
maximum_age_seconds = 30
[[anchors]]
kind = "sgx"
class = "sgx"
root = "intel-sgx-root"
[[runtime.sgx]]
mrenclave = "{mrenclave}"
[[trusted_apps]]
signer_id = "{signer}"
product_id = {product}
minimum_security_version = {minimum}
"""


@pytest.fixture(scope="module")
def signers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("one", "other"):
        new_key(folder / name, name, datetime.fromtimestamp(NOW, UTC) - timedelta(days=1))
    return [load_keyring(folder / name, ISSUER).signer(NOW) for name in ("one", "other")]


def platform(*, debug=False):
    anchor = Anchor("sgx", "sgx", KIND.roots["intel-sgx-root"], name="intel-sgx-root")
    runtime = {"mrenclave": ENCLAVE, "mrsigner": b"g" * 32, "isvprodid": 7, "isvsvn": 3}
    return PlatformEvidence(anchor, b"p" * 16, runtime, NONCE.ljust(64, b"\0"), debug)


def maa_token(signer, **changes):
    return maa.make_token(signer, platform(**changes), policy=b"p", now=NOW, lifetime_seconds=3600)


@pytest.fixture
def verify(tmp_path, capsys, signers):
    """Runs it: exit code, and verdict and code of each point (or the error's text)."""

    def call(token, *options, issuer=ISSUER, policy=True, now=NOW, **changes):
        values = {
            "classes": '["sgx", "emulated"]',
            "debug": "false",
            "freshness": "unknown",
            "mrenclave": ENCLAVE.hex(),
            "signer": IDENTITY.signer_id.hex(),
            "product": 7,
            "minimum": 1,
        }
        (tmp_path / "policy.toml").write_text(POLICY.format(**{**values, **changes}))
        (tmp_path / "jwks.json").write_text(json.dumps(signers[0].jwks()))
        (tmp_path / "token.jwt").write_text(token + "\n")
        arguments = ["--issuer", issuer, "--jwks", str(tmp_path / "jwks.json")] if issuer else []
        arguments += ["--policy", str(tmp_path / "policy.toml")] if policy else []
        code = run(["verify", str(tmp_path / "token.jwt"), *arguments, "--at", str(now), "--json", *options])
        printed = capsys.readouterr()
        if not printed.out:
            return code, printed.err
        checks = json.loads(printed.out)["checks"]
        return code, {check["point"]: check.get("code", check["verdict"]) for check in checks}

    return call


class TestMaa:
    def test_accepted(self, verify, signers):
        code, checks = verify(maa_token(signers[0]), "--nonce", NONCE.hex())
        assert code == 0
        assert checks == {
            **dict.fromkeys(("token", "class", "debug", "runtime", "freshness"), "passed"),
            "trusted-app": "not judged",
        }

    @pytest.mark.parametrize("about", [None, [], {}, "azurevm", 1])
    def test_about_something_else(self, verify, signers, about):
        said = jwt.decode(maa_token(signers[0]), options={"verify_signature": False})
        code, checks = verify(signers[0].sign({**said, "x-ms-attestation-type": about}, typ="JWT"))
        assert (code, checks["token"]) == (1, "wrong-attestation-type")

    def test_without_a_policy_only_whose_it_is(self, verify, signers):
        code, checks = verify(maa_token(signers[0]), policy=False)
        assert (code, checks["token"], checks["runtime"]) == (0, "passed", "not judged")

    @pytest.mark.parametrize(
        ("changes", "point", "code"),
        [
            pytest.param({"freshness": "beacon"}, "freshness", "freshness-unknown", id="a quote of unknown age"),
            pytest.param({"mrenclave": "00" * 32}, "runtime", "wrong-runtime", id="another enclave"),
            pytest.param({"classes": '["tdx"]'}, "class", "class-not-accepted", id="a class nobody named"),
            pytest.param({"issuer": "https://evil.example"}, "token", "embedded-key", id="another issuer"),
            pytest.param({"now": NOW + 3600}, "token", "token-expired", id="expired"),
            pytest.param({"now": NOW - 1}, "token", "token-not-yet-valid", id="of the future"),
        ],
    )
    def test_refused(self, verify, signers, changes, point, code):
        ended, checks = verify(maa_token(signers[0]), **changes)
        assert (ended, checks[point]) == (1, code)

    def test_debug(self, verify, signers):
        token = maa_token(signers[0], debug=True)
        assert verify(token)[1]["debug"] == "debug-platform"
        assert verify(token, debug="true")[0] == 0

    def test_another_nonce(self, verify, signers):
        code, checks = verify(maa_token(signers[0]), "--nonce", "00" * 16)
        assert (code, checks["freshness"]) == (1, "wrong-nonce")

    def test_a_platform_the_policy_has_no_reference_value_for(self, verify, signers):
        said = jwt.decode(maa_token(signers[0]), options={"verify_signature": False})
        renamed = {name.replace("sgx", "sevsnpvm"): value for name, value in said.items()}
        registers = {
            f"x-ms-sevsnpvm-{claim}": 0 if "svn" in claim or claim == "vmpl" else "00" for claim in maa._SNP_REGISTERS
        }
        more = {"x-ms-attestation-type": "sevsnpvm", "x-ms-sevsnpvm-reportdata": "00" * 64, **registers}
        code, checks = verify(signers[0].sign({**renamed, **more}, typ="JWT"))
        assert (code, checks["class"], checks["runtime"]) == (1, "class-not-accepted", "wrong-runtime")

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"x-ms-sgx-mrenclave": "xyz"}, id="no hex"),
            pytest.param({"x-ms-sgx-mrenclave": None}, id="null"),
            pytest.param({"x-ms-sgx-svn": 1.5}, id="a fraction"),
            pytest.param({"x-ms-sgx-is-debuggable": 0}, id="a number for a truth"),
            pytest.param({"x-ms-sgx-report-data": 1}, id="report data as a number"),
        ],
    )
    def test_claims_of_another_form(self, verify, signers, changes):
        said = jwt.decode(maa_token(signers[0]), options={"verify_signature": False})
        code, checks = verify(signers[0].sign({**said, **changes}, typ="JWT"))
        assert (code, checks["token"]) == (1, "malformed-token")


def encoded(part):
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def with_header(token, **header):
    head, payload, _ = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(head + "=="))
    return f"{encoded({**said, **header})}.{payload}"


@pytest.mark.parametrize("typ", ["JWT", "eat+jwt"])
class TestForgeries:
    def test_alg_none(self, verify, signers, typ):
        code, checks = verify(with_header(maa_token(signers[0]), alg="none", typ=typ) + ".")
        assert (code, checks["token"]) == (1, "wrong-token-algorithm")

    def test_hs256_with_the_public_key(self, verify, signers, typ):
        public = signers[0].key.public_key()
        secret = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        signed = with_header(maa_token(signers[0]), alg="HS256", typ=typ)
        mac = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), hashlib.sha256)).rstrip(b"=").decode()
        code, checks = verify(f"{signed}.{mac}")
        assert (code, checks["token"]) == (1, "wrong-token-algorithm")

    def test_a_key_in_the_token(self, verify, signers, typ):
        other = signers[1]
        said = jwt.decode(maa_token(other), options={"verify_signature": False})
        for header in ({"jwk": other.jwks()["keys"][0]}, {"x5c": other.jwks()["keys"][0]["x5c"]}):
            headers = {"kid": signers[0].key_id, "typ": typ, **header}
            code, checks = verify(jwt.encode(said, other.key, "RS256", headers=headers))
            assert (code, checks["token"]) == (1, "embedded-key")

    def test_signed_by_another(self, verify, signers, typ):
        said = jwt.decode(maa_token(signers[1]), options={"verify_signature": False})
        assert verify(signers[1].sign(said, typ=typ))[1]["token"] == "unknown-token-key"
        headers = {"kid": signers[0].key_id, "typ": typ}
        assert verify(jwt.encode(said, signers[1].key, "RS256", headers=headers))[1]["token"] == "bad-token-signature"


@pytest.fixture(scope="module")
def ear(signers):
    bench, now = EmulatorBench(), int(time.time())
    attested = Verifier(bench.policy(), endorsements=Endorsements()).verify(
        Instance(bench).evidence(), nonce=NONCE, now=now
    )
    return make_ear(signers[0], attested, nonce=NONCE, now=NOW, lifetime_seconds=60)


class TestEar:
    def test_accepted(self, verify, ear):
        code, checks = verify(ear, "--nonce", NONCE.hex())
        assert code == 0
        assert set(checks.values()) == {"passed"}

    @pytest.mark.parametrize(
        ("changes", "point", "code"),
        [
            pytest.param({"product": 8}, "trusted-app", "unknown-trusted-app", id="another product"),
            pytest.param(
                {"freshness": "nonce", "now": NOW + 31}, "freshness", "evidence-too-old", id="older than allowed"
            ),
            pytest.param({"minimum": 4}, "trusted-app", "security-version-too-low", id="an old version"),
            pytest.param({"classes": '["sgx"]'}, "class", "class-not-accepted", id="emulated, which nobody named"),
            pytest.param({"now": NOW + 60}, "token", "token-expired", id="expired"),
        ],
    )
    def test_refused(self, verify, ear, changes, point, code):
        ended, checks = verify(ear, **changes)
        assert (ended, checks[point]) == (1, code)

    def test_fresh_for_the_verifier(self, verify, ear):
        assert verify(ear, freshness="nonce", now=NOW + 30)[0] == 0

    def test_another_nonce(self, verify, ear):
        assert verify(ear, "--nonce", "00" * 16)[1]["freshness"] == "wrong-nonce"

    def test_offered_as_the_other_kind(self, verify, signers, ear):
        said = jwt.decode(ear, options={"verify_signature": False})
        assert verify(signers[0].sign(said, typ="JWT"))[1]["token"] == "wrong-attestation-type"
        said = jwt.decode(maa_token(signers[0]), options={"verify_signature": False})
        assert verify(signers[0].sign(said, typ="eat+jwt"))[1]["token"] == "malformed-token"


@pytest.fixture(scope="module")
def platform_ear(signers):
    return make_platform_ear(signers[0], platform(), nonce=NONCE, now=NOW, lifetime_seconds=60)


class TestEarOfPlatform:
    def test_accepted(self, verify, platform_ear):
        code, checks = verify(platform_ear, "--nonce", NONCE.hex())
        assert code == 0
        assert checks == {
            **dict.fromkeys(("token", "class", "debug", "runtime", "freshness"), "passed"),
            "trusted-app": "not judged",
        }

    @pytest.mark.parametrize(
        ("changes", "point", "code"),
        [
            pytest.param({"mrenclave": "00" * 32}, "runtime", "wrong-runtime", id="another enclave"),
            pytest.param({"classes": '["tdx"]'}, "class", "class-not-accepted", id="a class nobody named"),
            pytest.param({"freshness": "nonce", "now": NOW + 31}, "freshness", "evidence-too-old", id="too old"),
        ],
    )
    def test_refused(self, verify, platform_ear, changes, point, code):
        ended, checks = verify(platform_ear, **changes)
        assert (ended, checks[point]) == (1, code)

    def test_debug(self, verify, signers):
        token = make_platform_ear(signers[0], platform(debug=True), nonce=None, now=NOW, lifetime_seconds=60)
        assert verify(token)[1]["debug"] == "debug-platform"
        assert verify(token, debug="true")[0] == 0


class TestWhatAVerifierSays:
    """Its key is pinned, and still nothing is taken for what it is not."""

    @pytest.fixture
    def says(self, verify, signers, request):
        def call(token, changes):
            said = jwt.decode(request.getfixturevalue(token), options={"verify_signature": False})
            for about in said["submods"].values():
                about.update(changes)
            return verify(signers[0].sign(said, typ="eat+jwt"))

        return call

    @pytest.mark.parametrize(
        ("token", "changes"),
        [
            pytest.param("ear", {"edgeclave.product-id": "7"}, id="a text for a number"),
            pytest.param("ear", {"edgeclave.security-version": None}, id="null for a number"),
            pytest.param("ear", {"edgeclave.security-version": -1}, id="a number below zero"),
            pytest.param("ear", {"edgeclave.unique-id": "ab"}, id="a short digest"),
            pytest.param("ear", {"edgeclave.debug": 0}, id="a number for a truth"),
            pytest.param("ear", {"edgeclave.platform-class": ["sgx"]}, id="a list for a class"),
            pytest.param("ear", {"ear.status": 2}, id="a number for a status"),
            pytest.param("platform_ear", {"edgeclave.runtime": {"mrenclave": "xyz"}}, id="a register not in hex"),
            pytest.param("platform_ear", {"edgeclave.runtime": {"mrenclave": 1.5}}, id="a register of a fraction"),
            pytest.param("platform_ear", {"edgeclave.kind": None}, id="no kind"),
        ],
    )
    def test_claims_of_another_form(self, says, token, changes):
        code, checks = says(token, changes)
        assert (code, checks["token"]) == (1, "malformed-token")

    def test_a_kind_that_the_policy_has_no_reference_value_for(self, says):
        assert says("platform_ear", {"edgeclave.kind": "tdx"})[1]["runtime"] == "wrong-runtime"

    def test_it_advises_against_the_platform(self, says):
        code, checks = says("platform_ear", {"ear.status": "contraindicated"})
        assert (code, checks["token"]) == (1, "contraindicated")

    @pytest.mark.parametrize(("as_of", "code"), [(0, 0), (NOW - 1, 0), (-1, 1), (10**12, 1), (True, 1), ("now", 1)])
    def test_as_of_when_it_appraised(self, verify, signers, platform_ear, as_of, code):
        said = jwt.decode(platform_ear, options={"verify_signature": False})
        assert verify(signers[0].sign({**said, "edgeclave.appraised-as-of": as_of}, typ="eat+jwt"))[0] == code
        said = jwt.decode(maa_token(signers[0]), options={"verify_signature": False})
        assert verify(signers[0].sign({**said, "x-edgeclave-appraised-as-of": as_of}, typ="JWT"))[0] == code

    @pytest.mark.parametrize("allowed", [True, None, "false"])
    def test_a_guest_whose_memory_may_be_moved(self, allowed):
        registers = {f"x-ms-sevsnpvm-{claim}": 0 for claim in maa._SNP_REGISTERS}
        fixed = {"is-debuggable": False, "reportdata": "00" * 64, "migration-allowed": allowed}
        claims = {"x-ms-attestation-type": "sevsnpvm", **registers}
        claims |= {f"x-ms-sevsnpvm-{name}": value for name, value in fixed.items()}
        with pytest.raises(EvidenceError, match="migration-agent"):
            maa.measurement(claims)
        assert maa.measurement({**claims, "x-ms-sevsnpvm-migration-allowed": False})


AROUND = {
    "an answer of MAA": lambda token: json.dumps({"token": token}),
    "JSON of a text": json.dumps,
    "a header": lambda token: f"Authorization: Bearer {token}",
    "a header's value in JSON": lambda token: json.dumps({"token": f"bearer {token}"}),
    "white space": lambda token: f"\r\n {token}\r\n\r\n",
    "a byte order mark": lambda token: "\N{BYTE ORDER MARK}" + token,
}


@pytest.mark.parametrize("wrap", AROUND.values(), ids=AROUND)
class TestWhatStandsAroundIt:
    def test_accepted(self, verify, signers, wrap):
        assert verify(wrap(maa_token(signers[0])), "--nonce", NONCE.hex())[0] == 0

    def test_a_forged_one_is_refused(self, verify, signers, wrap):
        code, checks = verify(wrap(with_header(maa_token(signers[0]), alg="none") + "."))
        assert (code, checks["token"]) == (1, "wrong-token-algorithm")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"token": 1}', id="a number"),
        pytest.param('{"token": "eyJ.x"}', id="two parts"),
        pytest.param('{"other": "eyJ.x.y"}', id="by another name"),
        pytest.param('{"token": {"token": "eyJ.x.y"}}', id="deeper"),
        pytest.param('"eyJ.x.y', id="half a JSON"),
        pytest.param("Bearer", id="nothing behind Bearer"),
    ],
)
def test_what_is_no_token(verify, text):
    code, error = verify(text)
    assert code == 2
    assert "[not-readable]" in error


@pytest.mark.parametrize("options", [[], ["--issuer", ISSUER]])
def test_nothing_is_pinned(verify, signers, options):
    code, error = verify(maa_token(signers[0]), *options, issuer=None)
    assert code == 2
    assert "[needs-issuer]" in error
