"""Endorsements from the vendors' services: everything verified before anything is stored, and nothing stored otherwise.

The services are stand-ins on this machine that send real documents of Intel, and those of stand-in hardware.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from urllib.parse import quote

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edgeclave.cli.main import run
from edgeclave.cloud.vendor_services import amd, https
from edgeclave.cloud.vendor_services.intel import Platform, without_path
from edgeclave.cloud.vendor_services.wanted import Authority, fetch, wanted_by
from edgeclave.errors import ConfigurationError, EdgeclaveError
from edgeclave.evidence import intel, sev_snp
from edgeclave.evidence.amd_certificates import ROOTS
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.kinds import KINDS
from edgeclave.evidence.sev_snp_report import from_hex, parse_report
from tests.fixtures.amd_hardware import MILAN_TCB, TURIN_CHIP_ID, TURIN_TCB, AmdHardware
from tests.fixtures.azure_hardware import AzureHardware
from tests.fixtures.evidence_bench import NOW
from tests.fixtures.intel_hardware import FMSPC, IntelHardware
from tests.fixtures.real_vectors import real_vector
from tests.fixtures.vendor_service import (
    collateral_documents,
    key_service_documents,
    pem,
    vendor_stand_in,
)

IN_2025 = 1752919000
TCB = f"/sgx/certification/v4/tcb?fmspc={FMSPC.hex().upper()}"
IDENTITY = "/sgx/certification/v4/qe/identity"
PCK_LIST = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der"
ROOT_LIST = "/sgx/certification/v4/rootcacrl"
CHAIN = "TCB-Info-Issuer-Chain"


@pytest.fixture
def service(tmp_path):
    with vendor_stand_in(tmp_path) as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def hardware():
    return IntelHardware(NOW)


@pytest.fixture
def intel_service(service, hardware):
    return service.has(collateral_documents(hardware.collateral("sgx"), "sgx", FMSPC.hex(), "platform"))


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A busy service is asked again at once."""
    monkeypatch.setattr(https, "LONGEST_WAIT_SECONDS", 0.01)


def vendors():
    return {
        "intel": [Anchor("sgx", "sgx", root, name=name) for name, root in intel.ROOTS.items()],
        "amd": [Anchor("sev-snp", "sev-snp", root, name=name) for name, root in ROOTS.items()],
    }


def roots(*, intel_hardware=None, amd_hardware=None):
    anchors = {"intel": [], "amd": []}
    if intel_hardware is not None:
        anchors["intel"] = [Anchor("sgx", "emulated", intel_hardware.root.public_key(), test=True)]
    if amd_hardware is not None:
        anchors["amd"] = [amd_hardware.anchor()]
    return anchors


def ask(service, wanted, anchors, now=NOW):
    return asyncio.run(fetch([wanted], anchors, now, lambda _: None, url=service.url, ca=service.ca))


def refused(service, wanted, anchors, now=NOW):
    with pytest.raises(EdgeclaveError) as error:
        ask(service, wanted, anchors, now)
    assert error.value.advice
    return error.value.code


class TestIntel:
    @pytest.mark.parametrize("tee", ["sgx", "tdx"])
    def test_real_collateral_as_intel_sends_it_verifies_a_real_quote(self, service, tee):
        quote_bytes = real_vector(f"intel/{tee}_quote")
        wanted = wanted_by(quote_bytes)
        documents = collateral_documents(
            real_vector(f"intel/{tee}_quote_collateral.json"), wanted.tee, wanted.fmspc, wanted.ca
        )
        found = ask(service.has(documents), wanted, vendors(), IN_2025)
        assert sorted(service.asked) == sorted(documents)
        kind = KINDS[tee]
        anchors = [Anchor(tee, tee, root, name=name) for name, root in intel.ROOTS.items()]
        assert kind.verify(kind.trim(quote_bytes), Endorsements(found), anchors, IN_2025).tcb is not None

    @pytest.mark.parametrize("tee", ["sgx", "tdx"])
    def test_of_stand_in_hardware(self, service, hardware, tee):
        service.has(collateral_documents(hardware.collateral(tee), tee, FMSPC.hex(), "platform"))
        (found,) = ask(service, Platform(tee, FMSPC.hex(), "platform"), roots(intel_hardware=hardware))
        assert found.subject == f"{tee}-{FMSPC.hex()}-platform"
        assert intel.read_collateral(found.value) == (found,)

    @pytest.mark.parametrize("form", ["hex", "DER", "PEM"])
    def test_revocation_lists_in_every_form_that_caches_send(self, intel_service, hardware, form):
        for path, name in ((PCK_LIST, "pck_crl"), (ROOT_LIST, "root_ca_crl")):
            der = bytes.fromhex(json.loads(hardware.collateral("sgx"))[name])
            read = x509.load_der_x509_crl(der)
            body = {"hex": der.hex().encode(), "DER": der, "PEM": read.public_bytes(Encoding.PEM)}[form]
            headers = getattr(intel_service.documents[path], "headers", {})
            intel_service.has({path: web.Response(body=body, headers=headers)})
        assert ask(intel_service, Platform("sgx", FMSPC.hex(), "platform"), roots(intel_hardware=hardware))

    def test_that_a_platform_was_revoked_is_stored(self, service, hardware):
        """Or else nobody would hear of it."""
        collateral = hardware.collateral("sgx", status="Revoked", revoked=True)
        service.has(collateral_documents(collateral, "sgx", FMSPC.hex(), "platform"))
        assert ask(service, Platform("sgx", FMSPC.hex(), "platform"), roots(intel_hardware=hardware))

    def test_the_path_that_a_cache_is_named_with(self):
        assert without_path("https://pccs.example:8081/sgx/certification/v4/") == "https://pccs.example:8081"
        assert without_path("https://pccs.example/cache") == "https://pccs.example/cache"

    @pytest.mark.parametrize(
        "fmspc", ["", "00a0", "00a06711000g", "00a067110000&ca=x", "../../000000", "00a06711000000"]
    )
    def test_an_fmspc_is_never_a_path(self, fmspc):
        with pytest.raises(ConfigurationError, match="bad-fmspc"):
            Platform("sgx", fmspc, "platform")


def changed(response, old, new):
    return web.Response(body=response.body.replace(old, new), headers=response.headers)


class TestIntelRefused:
    """Each changes one thing of what the service sends."""

    @pytest.fixture
    def asked(self, intel_service, hardware):
        def ask_for_it(code):
            wanted = Platform("sgx", FMSPC.hex(), "platform")
            assert refused(intel_service, wanted, roots(intel_hardware=hardware)) == code

        return ask_for_it

    def test_a_changed_status(self, intel_service, asked):
        intel_service.documents[TCB] = changed(intel_service.documents[TCB], b"UpToDate", b"OutOfDat")
        asked("bad-endorsement-signature")

    def test_a_space_more(self, intel_service, asked):
        intel_service.documents[IDENTITY] = changed(intel_service.documents[IDENTITY], b'{"id"', b'{ "id"')
        asked("bad-endorsement-signature")

    def test_the_signature_of_the_other_document(self, intel_service, asked):
        signatures = [json.loads(intel_service.documents[path].body)["signature"].encode() for path in (TCB, IDENTITY)]
        intel_service.documents[TCB] = changed(intel_service.documents[TCB], *signatures)
        asked("bad-endorsement-signature")

    @pytest.mark.parametrize("signature", [b"", b"00", b"zz" * 64, b"0" * 128])
    def test_no_signature(self, intel_service, asked, signature):
        found = json.loads(intel_service.documents[TCB].body)["signature"].encode()
        intel_service.documents[TCB] = changed(intel_service.documents[TCB], found, signature)
        asked("bad-endorsement-signature" if signature == b"0" * 128 else "malformed-endorsement")

    def test_of_another_vendor(self, intel_service, asked):
        other = IntelHardware(NOW).collateral("sgx")
        intel_service.has(collateral_documents(other, "sgx", FMSPC.hex(), "platform"))
        asked("untrusted-anchor")

    @pytest.mark.parametrize("path", [TCB, IDENTITY, PCK_LIST, ROOT_LIST])
    def test_one_document_of_another_vendor(self, intel_service, asked, path):
        other = collateral_documents(IntelHardware(NOW).collateral("sgx"), "sgx", FMSPC.hex(), "platform")
        intel_service.has({path: other[path]})
        asked("untrusted-anchor" if path == PCK_LIST else "bad-endorsement-signature")

    def test_for_another_tee(self, intel_service, hardware, asked):
        tdx = collateral_documents(hardware.collateral("tdx"), "sgx", FMSPC.hex(), "platform")
        intel_service.has(tdx)
        asked("unexpected-answer")

    def test_the_identity_of_another_quoting_enclave(self, intel_service, hardware, asked):
        tdx = collateral_documents(hardware.collateral("tdx"), "sgx", FMSPC.hex(), "platform")
        intel_service.has({IDENTITY: tdx[IDENTITY]})
        asked("malformed-endorsement")

    @pytest.mark.parametrize("now", [NOW - 90 * 86400, NOW + 90 * 86400])
    def test_out_of_date(self, intel_service, hardware, now):
        wanted = Platform("sgx", FMSPC.hex(), "platform")
        code = refused(intel_service, wanted, roots(intel_hardware=hardware), now)
        assert code == ("endorsement-expired" if now > NOW else "endorsement-not-yet-valid")

    def test_signed_by_the_platform_itself(self, intel_service, hardware, asked):
        chain = pem(hardware.pck.public_bytes(Encoding.DER))
        found = intel_service.documents[TCB]
        headers = {CHAIN: quote((chain.decode() + hardware.root_pem), safe="")}
        intel_service.documents[TCB] = web.Response(body=found.body, headers=headers)
        asked("malformed-endorsement")

    @pytest.mark.parametrize(
        "chain", [None, "", "junk", "%ff%fe", quote("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")]
    )
    def test_no_chain(self, intel_service, asked, chain):
        found = intel_service.documents[TCB]
        headers = {} if chain is None else {CHAIN: chain}
        intel_service.documents[TCB] = web.Response(body=found.body, headers=headers)
        asked("unexpected-answer" if chain is None else "malformed-endorsement")

    @pytest.mark.parametrize(
        "body", [b"", b"null", b"[]", b"{}", b'{"tcbInfo":1}', b'{"tcbInfo":{},"signature":1}', b"\xff", b"{" * 100_000]
    )
    def test_no_document(self, intel_service, asked, body):
        intel_service.documents[TCB] = web.Response(body=body, headers=intel_service.documents[TCB].headers)
        asked("unexpected-answer")

    @pytest.mark.parametrize("body", [b"", b"junk", b"00", b"-----BEGIN X509 CRL-----"])
    def test_no_list(self, intel_service, asked, body):
        intel_service.documents[ROOT_LIST] = body
        asked("unexpected-answer")


@pytest.fixture(params=["Milan", "Genoa", "Turin"])
def chip(request):
    turin = request.param == "Turin"
    values = {"chip_id": TURIN_CHIP_ID, "tcb": TURIN_TCB} if turin else {"tcb": MILAN_TCB}
    return AmdHardware(product=request.param, bits=2048, test_root=f"service {request.param}", **values)


class TestAmd:
    def test_what_a_report_needs(self, service, chip):
        documents = key_service_documents(chip, chip.revocation_list())
        report = chip.report()
        found = ask(service.has(documents), parse_report(report), roots(amd_hardware=chip))
        assert sorted(service.asked) == sorted(documents)
        verified = sev_snp.verify_report(report, Endorsements(found), [chip.anchor()], NOW)
        assert verified.endorsed_by.revocation_checked

    def test_a_report_that_does_not_say_its_product(self, service):
        chip = AmdHardware(product="Genoa", bits=2048, test_root="service Genoa")
        service.has(key_service_documents(chip, chip.revocation_list()))
        found = ask(service, parse_report(chip.report(version=2, cpuid=bytes(3))), roots(amd_hardware=chip))
        assert len(found) == 4

    def test_of_an_azure_confidential_vm(self, service):
        azure = AzureHardware()
        service.has(key_service_documents(azure.amd, azure.amd.revocation_list()))
        assert len(ask(service, wanted_by(azure.quote(bytes(64))), roots(amd_hardware=azure.amd))) == 4

    def test_what_stands_above_a_vlek(self, service):
        chip = AmdHardware(signer="VLEK", bits=2048, test_root="service VLEK")
        documents = key_service_documents(chip, chip.revocation_list(), "vlek")
        found = ask(service.has(documents), parse_report(chip.report()), roots(amd_hardware=chip))
        assert [each.type for each in found] == ["amd-root", "amd-signing-key", "amd-revocation-list"]
        assert found == ask(service, Authority("Milan", "VLEK"), roots(amd_hardware=chip))

    def test_that_a_signing_key_was_revoked_is_stored(self, service, chip):
        service.has(key_service_documents(chip, chip.revocation_list([65537])))
        found = ask(service, parse_report(chip.report()), roots(amd_hardware=chip))
        with pytest.raises(EdgeclaveError, match="platform-revoked"):
            sev_snp.verify_report(chip.report(), Endorsements(found), [chip.anchor()], NOW)

    def test_a_real_report_is_asked_about_as_amd_says(self, service):
        """AMD's own revocation list is not among the vectors: so this ends where another root's is offered."""
        report = parse_report(from_hex(real_vector("amd/report_milan.hex")))
        other = AmdHardware(bits=2048, test_root="service Milan")
        path = amd._key_path(report, "Milan")
        assert path.startswith(f"/vcek/v1/Milan/{report.chip_id.hex()}?blSPL=")
        service.documents[path] = real_vector("amd/vcek_milan.der")
        service.documents["/vcek/v1/Milan/cert_chain"] = real_vector("amd/cert_chain_milan")
        service.documents["/vcek/v1/Milan/crl"] = other.revocation_list()
        assert refused(service, report, vendors()) == "bad-endorsement-signature"


class TestAmdRefused:
    @pytest.fixture
    def chip(self):
        return AmdHardware(bits=2048, test_root="service Milan")

    @pytest.fixture
    def documents(self, chip):
        return key_service_documents(chip, chip.revocation_list())

    @staticmethod
    def path(documents, part):
        return next(path for path in documents if part in path)

    @pytest.mark.parametrize(
        ("part", "change", "code"),
        [
            ("SPL", lambda chip: AmdHardware(chip_id=b"o" * 64, bits=2048).certificate, "unexpected-answer"),
            ("SPL", lambda chip: AmdHardware(bits=2048, test_root="other").certificate, "bad-endorsement-signature"),
            ("SPL", lambda chip: b"junk", "unexpected-answer"),
            ("SPL", lambda chip: chip.certificate + b"\0", "unexpected-answer"),
            ("chain", lambda chip: pem(chip.root), "unexpected-answer"),
            ("chain", lambda chip: pem(chip.signing_certificate), "unexpected-answer"),
            ("chain", lambda chip: 2 * (pem(chip.root) + pem(chip.signing_certificate)), "unexpected-answer"),
            (
                "chain",
                lambda chip: b"".join(
                    pem(der)
                    for other in [AmdHardware(bits=2048, test_root="other")]
                    for der in (other.signing_certificate, other.root)
                ),
                "untrusted-anchor",
            ),
            (
                "crl",
                lambda chip: AmdHardware(bits=2048, test_root="other").revocation_list(),
                "bad-endorsement-signature",
            ),
            ("crl", lambda chip: chip.revocation_list(begin=NOW - 9, end=NOW - 1), "endorsement-expired"),
            ("crl", lambda chip: b"", "unexpected-answer"),
            ("crl", lambda chip: chip.root, "unexpected-answer"),
        ],
        ids=[
            "another chip's",
            "a VCEK under another root",
            "no certificate",
            "a byte behind it",
            "no signing key",
            "no root",
            "two chains",
            "another root",
            "another root's list",
            "an old list",
            "no list",
            "a certificate as list",
        ],
    )
    def test_one_thing_is_wrong(self, service, chip, documents, part, change, code):
        service.has({**documents, self.path(documents, part): change(chip)})
        assert refused(service, parse_report(chip.report()), roots(amd_hardware=chip)) == code

    def test_a_masked_chip_id_is_not_asked_about(self, service, chip):
        assert (
            refused(service, parse_report(chip.report(chip_id=bytes(64))), roots(amd_hardware=chip)) == "chip-id-masked"
        )
        assert service.asked == []


class TestBadServices:
    """Of the HTTP kind. Whatever it is, there is one error, and nothing is stored (TestCommand)."""

    WANTED = Platform("sgx", FMSPC.hex(), "platform")

    @pytest.mark.parametrize(
        ("response", "code"),
        [
            (web.Response(status=404), "not-published"),
            (web.Response(status=400), "not-published"),
            (web.Response(status=401), "unexpected-answer"),
            (web.Response(status=500), "unexpected-answer"),
            (web.Response(status=204), "unexpected-answer"),
            (web.Response(status=302, headers={"Location": ROOT_LIST}), "unexpected-answer"),
            (web.Response(status=307, headers={"Location": "https://elsewhere.example/"}), "unexpected-answer"),
            (web.Response(status=503, headers={"Retry-After": "3600"}), "service-busy"),
            (web.Response(status=429), "service-busy"),
            (web.Response(body=bytes(https.MAX_ANSWER_BYTES + 1)), "unexpected-answer"),
            (web.Response(body=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}), "unexpected-answer"),
            (web.Response(headers={CHAIN: "x" * (https.MAX_HEADER_BYTES + 1)}), "unexpected-answer"),
        ],
        ids=lambda value: str(value.status) if isinstance(value, web.Response) else value,
    )
    def test_refused(self, intel_service, hardware, response, code):
        intel_service.documents[TCB] = response
        assert refused(intel_service, self.WANTED, roots(intel_hardware=hardware)) == code
        assert set(intel_service.asked) == {TCB}

    def test_a_redirect_is_never_followed_even_to_itself(self, intel_service, hardware):
        """302 above leads to a document of the same service: it must not have been asked for."""
        intel_service.documents[TCB] = web.Response(status=302, headers={"Location": intel_service.url + ROOT_LIST})
        assert refused(intel_service, self.WANTED, roots(intel_hardware=hardware)) == "unexpected-answer"
        assert intel_service.asked == [TCB]

    @pytest.mark.parametrize("wait", ["0", "Wed, 21 Oct 2015 07:28:00 GMT", None, "soon", "-1"])
    def test_a_busy_service_is_asked_again(self, intel_service, hardware, wait):
        good, left = intel_service.documents[TCB], [429, 503, 503]

        async def busy_at_first(_):
            if left:
                return web.Response(status=left.pop(), headers={} if wait is None else {"Retry-After": wait})
            return web.Response(body=good.body, headers=good.headers)

        intel_service.documents[TCB] = busy_at_first
        assert ask(intel_service, self.WANTED, roots(intel_hardware=hardware))
        assert intel_service.asked.count(TCB) == https.ATTEMPTS

    def test_it_is_not_asked_for_ever(self, intel_service, hardware):
        intel_service.documents[TCB] = web.Response(status=503)
        assert refused(intel_service, self.WANTED, roots(intel_hardware=hardware)) == "service-busy"
        assert intel_service.asked == [TCB] * https.ATTEMPTS

    async def hang(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.sleep(30)
        return response

    async def cut(self, request):
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"{")
        request.transport.close()
        return response

    def test_one_that_never_ends(self, intel_service, hardware, monkeypatch):
        monkeypatch.setattr(https, "REQUEST_SECONDS", 0.3)
        monkeypatch.setattr(https, "ATTEMPTS", 2)
        intel_service.documents[TCB] = self.hang
        begin = time.monotonic()
        assert refused(intel_service, self.WANTED, roots(intel_hardware=hardware)) == "service-unreachable"
        assert time.monotonic() - begin < 10

    def test_one_that_breaks_off(self, intel_service, hardware):
        intel_service.documents[TCB] = self.cut
        code = refused(intel_service, self.WANTED, roots(intel_hardware=hardware))
        assert code in ("unexpected-answer", "service-unreachable")

    def test_one_that_is_not_there(self, service, hardware, tmp_path):
        with vendor_stand_in(tmp_path) as gone:
            pass
        assert refused(gone, self.WANTED, roots(intel_hardware=hardware)) == "service-unreachable"

    def test_one_whose_certificate_nobody_trusts(self, intel_service, hardware):
        intel_service.ca = None
        assert refused(intel_service, self.WANTED, roots(intel_hardware=hardware)) == "service-unreachable"
        assert intel_service.asked == []

    def test_one_whose_certificate_is_for_another_name(self, intel_service, hardware):
        intel_service.url = intel_service.url.replace("localhost", "127.0.0.1")
        assert refused(intel_service, self.WANTED, roots(intel_hardware=hardware)) == "service-unreachable"

    @pytest.mark.parametrize(
        "url",
        [
            "http://pccs.example", "pccs.example", "https://", "https://user:word@pccs.example", "ftp://pccs.example",
            "https://pccs.example?x=1", "https://pccs.example#x", "https://pccs.example:x", "https://[::1", "",
        ],
    )  # fmt: skip
    def test_an_address_that_is_none(self, url):
        with pytest.raises(ConfigurationError, match="bad-url"):
            https.VendorService(url)


class TestCommand:
    @pytest.fixture
    def fresh(self, tmp_path, monkeypatch):
        """Stand-in hardware of now, and a policy that names its root."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("EDGECLAVE_ENDORSEMENTS", raising=False)
        hardware = IntelHardware(int(time.time()))
        (tmp_path / "root.pem").write_text(hardware.root_pem)
        (tmp_path / "quote.bin").write_bytes(hardware.sgx_quote())
        (tmp_path / "policy.toml").write_text(
            'classes = ["emulated"]\ntrusted_apps = []\n[[anchors]]\nkind = "sgx"\nclass = "emulated"\n'
            f'test_root = "root.pem"\n[[runtime.sgx]]\nmrenclave = "{(b"e" * 32).hex()}"\n'
        )
        return hardware

    @staticmethod
    def fetch(service, *arguments):
        trust = ["--from", service.url, "--ca", str(service.ca)]
        return run(["endorsements", "fetch", *arguments, *trust])

    def test_a_quote_is_verified_with_what_was_fetched(self, service, fresh, capsys):
        service.has(collateral_documents(fresh.collateral("sgx"), "sgx", FMSPC.hex(), "platform"))
        assert run(["verify", "quote.bin", "--policy", "policy.toml"]) == 1
        assert self.fetch(service, "quote.bin", "--policy", "policy.toml") == 0
        assert run(["verify", "quote.bin", "--policy", "policy.toml"]) == 0
        capsys.readouterr()
        assert run(["endorsements", "show", "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert row["state"] == "valid"

    def test_by_model_of_platform_for_both_cas(self, service, fresh, capsys):
        service.has(collateral_documents(fresh.collateral("sgx"), "sgx", FMSPC.hex(), "platform"))
        assert self.fetch(service, "--sgx-fmspc", FMSPC.hex(), "--policy", "policy.toml") == 1
        assert "[not-published]" in capsys.readouterr().err  # this vendor has no processor CA
        assert any("ca=processor" in path for path in service.asked)

    def test_nothing_is_stored_unless_all_verified(self, service, fresh, tmp_path, capsys):
        service.has(collateral_documents(fresh.collateral("sgx"), "sgx", FMSPC.hex(), "platform"))
        bad = IntelHardware(int(time.time())).collateral("tdx")
        service.has(collateral_documents(bad, "tdx", FMSPC.hex(), "platform"))
        (tmp_path / "other.bin").write_bytes(fresh.tdx_quote())
        policy = tmp_path / "policy.toml"
        policy.write_text(
            policy.read_text() + '[[anchors]]\nkind = "tdx"\nclass = "emulated"\ntest_root = "root.pem"\n'
            "[[runtime.tdx]]\n"
            + "".join(f'{name} = "{"00" * 48}"\n' for name in ("mrtd", *(f"rtmr{i}" for i in range(4))))
        )
        assert self.fetch(service, "quote.bin", "other.bin", "--policy", "policy.toml") == 1
        assert "[untrusted-anchor]" in capsys.readouterr().err
        assert not (tmp_path / ".edgeclave").exists()

    def test_a_test_root_is_not_trusted_unless_a_policy_names_it(self, service, fresh, tmp_path, capsys):
        service.has(collateral_documents(fresh.collateral("sgx"), "sgx", FMSPC.hex(), "platform"))
        assert self.fetch(service, "quote.bin") == 1
        assert "[untrusted-anchor]" in capsys.readouterr().err
        assert not (tmp_path / ".edgeclave").exists()

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            ([], "nothing-wanted"),
            (["--amd-product", "Naples"], "unknown-product"),
            (["--sgx-fmspc", "zz"], "bad-fmspc"),
            (["missing.bin"], "no-such-file"),
            (["policy.toml"], "not-evidence"),
        ],
    )
    def test_wrong_use(self, service, fresh, capsys, arguments, code):
        assert self.fetch(service, *arguments) == 1
        assert f"[{code}]" in capsys.readouterr().err
        assert service.asked == []
