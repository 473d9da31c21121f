"""Intel quotes: real ones at their time, and on stand-in hardware what real ones cannot show."""

from __future__ import annotations

import base64
import json
from datetime import date
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence import intel, sgx, tdx
from edgeclave.evidence.anchors import Anchor, Tcb
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.kinds import KINDS, detect
from edgeclave.evidence.policy import Policy, TcbException
from edgeclave.evidence.reference import AnyOf, Reference
from edgeclave.evidence.verifier import Verifier
from tests.fixtures.intel_hardware import IntelHardware

VECTORS = Path(__file__).parents[4] / "shared" / "vectors" / "intel"
REAL_TIME = 1_752_919_000
NOW = 1_750_000_000
OUTDATED_TIME = 1_771_500_000  # within the collateral of the outdated quote


def vector(name):
    path = VECTORS / name
    assert path.exists(), f"{path} is missing: put the real attestation vectors next to the checkout"
    return path.read_bytes()


def real(name):
    """Kind, quote and endorsements of a real quote."""
    kind, quote = detect(vector(name))
    return KINDS[kind], quote, Endorsements(intel.read_collateral(vector(f"{name}_collateral.json")))


def intel_root(kind):
    return [Anchor(kind.name, min(kind.classes), intel.ROOTS["intel-sgx-root"], name="intel-sgx-root")]


def verify_real(name, now=REAL_TIME, change=lambda quote: quote):
    kind, quote, endorsements = real(name)
    return kind.verify(change(quote), endorsements, intel_root(kind), now)


def code_of(call, *arguments, **options):
    with pytest.raises(EvidenceError) as refused:
        call(*arguments, **options)
    return refused.value.code


class TestRealQuotes:
    def test_sgx(self):
        said = verify_real("sgx_quote")
        assert said.tcb == Tcb("ConfigurationAndSWHardeningNeeded", ("INTEL-SA-00289", "INTEL-SA-00615"))
        assert said.report_data == b"Hello, world!".ljust(64, b"\0")
        assert said.runtime["mrenclave"].hex().startswith("33d8736db756ed49")
        assert (said.runtime["isvprodid"], said.runtime["isvsvn"]) == (0, 0)
        assert said.platform_instance.hex() == said.details["ppid"] == "d04ec06d4e6d92dc90d0ad3cf5ee2ddf"
        assert said.details["fmspc"] == "00a067110000"
        assert not said.debug

    def test_tdx(self):
        said = verify_real("tdx_quote")
        assert said.tcb == Tcb("UpToDate")
        assert said.runtime["mrtd"].hex().startswith("91eb2b44d141d4ec")
        assert said.runtime["rtmr3"] == bytes(48)
        assert said.details["fmspc"] == "b0c06f000000"

    def test_an_outdated_tdx_quote_v5(self):
        assert code_of(verify_real, "tdx_quote_outdated", OUTDATED_TIME) == "tcb-unknown"
        assert code_of(verify_real, "tdx_quote_outdated") == "endorsement-not-yet-valid"

    def test_our_pinned_root_is_the_one_that_dcap_qvl_has_built_in(self):
        import dcap_qvl

        library_says = dcap_qvl.verify(
            vector("sgx_quote"),
            dcap_qvl.QuoteCollateralV3.from_json(vector("sgx_quote_collateral.json").decode()),
            REAL_TIME,
        )
        assert library_says.status == verify_real("sgx_quote").tcb.status

    @pytest.mark.parametrize("name", ["sgx_quote", "tdx_quote"])
    @pytest.mark.parametrize(
        ("now", "code"),
        [
            (0, "endorsement-not-yet-valid"),
            (1_750_000_000, "endorsement-not-yet-valid"),
            (1_753_000_000, "endorsement-expired"),
            (1_800_000_000, "endorsement-expired"),
        ],
    )
    def test_at_the_wrong_time(self, name, now, code):
        assert code_of(verify_real, name, now) == code

    @pytest.mark.parametrize("name", ["sgx_quote", "tdx_quote"])
    @given(data=st.data())
    @settings(max_examples=150, deadline=None)
    def test_one_bit_anywhere_up_to_the_certificates(self, name, data):
        def flip(quote):
            altered = bytearray(quote)
            position = data.draw(st.integers(0, quote.index(b"-----BEGIN") - 1))
            altered[position] ^= 1 << data.draw(st.integers(0, 7))
            return bytes(altered)

        code_of(verify_real, name, change=flip)

    @pytest.mark.parametrize("name", ["sgx_quote", "tdx_quote"])
    @given(data=st.data())
    @settings(max_examples=60, deadline=None)
    def test_one_bit_of_any_certificate(self, name, data):
        """Of the DER, so that every bit has a meaning; framed again with the right lengths."""
        _, quote, _ = real(name)
        end = b"-----END CERTIFICATE-----"
        parts = quote[quote.index(b"-----BEGIN") :].split(end)[:-1]
        chosen = data.draw(st.integers(0, len(parts) - 1))
        lines = parts[chosen].strip().split(b"\n")
        line = data.draw(st.integers(1, len(lines) - 2))
        place = data.draw(st.integers(0, 63))
        letter = b"B" if lines[line][place : place + 1] == b"A" else b"A"
        altered = quote.replace(lines[line], lines[line][:place] + letter + lines[line][place + 1 :])
        assert altered != quote
        code_of(verify_real, name, change=lambda _: altered)

    def test_a_name_in_its_certificate_that_is_no_text(self):
        """Which the library finds only when it is asked for the name."""
        _, quote, _ = real("tdx_quote")
        pem = quote[quote.index(b"-----BEGIN") :].partition(b"-----END")[0].partition(b"-----\n")[2]
        der = base64.b64decode(pem)
        country = bytes.fromhex("0603550406") + b"\x13\x02US"
        assert der.count(country) == 2  # of issuer and subject
        altered = base64.b64encode(der.replace(country, country.replace(b"\x13", b"\x03")))
        lines = b"\n".join(altered[start : start + 64] for start in range(0, len(altered), 64)) + b"\n"
        assert len(lines) == len(pem)
        assert code_of(verify_real, "tdx_quote", change=lambda _: quote.replace(pem, lines)) == "malformed-quote"

    @pytest.mark.parametrize("name", ["tdx_quote.bin", "tdx_quote_v5.bin"])
    def test_real_quotes_without_collateral(self, name):
        kind, quote = detect(vector(name))
        assert kind == "tdx"
        assert code_of(tdx.verify, quote, Endorsements(), intel_root(tdx.KIND), REAL_TIME) == "no-endorsement"

    def test_a_broken_report_is_no_quote(self):
        assert detect(vector("sgx_report_bad.bin")) is None
        assert detect(vector("sgx_cert_ec_bad.der")) is None

    def test_collateral_of_another_platform_is_not_taken_for_it(self):
        kind, quote, _ = real("tdx_quote")
        other = Endorsements(intel.read_collateral(vector("sgx_quote_collateral.json")))
        assert code_of(kind.verify, quote, other, intel_root(kind), REAL_TIME) == "no-endorsement"

    @pytest.mark.parametrize("name", ["tcb_info", "qe_identity", "pck_crl", "root_ca_crl"])
    def test_altered_collateral(self, name):
        values = json.loads(vector("sgx_quote_collateral.json"))
        text = values[name]
        # a digit inside what is signed; the dates in front of it stay
        place = max(text.rfind("0", 0, -40), text.rfind("1", 0, -40))
        values[name] = text[:place] + ("1" if text[place] == "0" else "0") + text[place + 1 :]
        endorsements = Endorsements(intel.read_collateral(json.dumps(values).encode()))
        kind, quote, _ = real("sgx_quote")
        code_of(kind.verify, quote, endorsements, intel_root(kind), REAL_TIME)

    def test_collateral_with_a_number_that_is_none(self):
        values = json.loads(vector("sgx_quote_collateral.json"))
        values["tcb_info"] = values["tcb_info"].replace(
            '"tcbEvaluationDataNumber":', '"tcbEvaluationDataNumber":1e999, "n":'
        )
        endorsements = Endorsements(intel.read_collateral(json.dumps(values).encode()))
        kind, quote, _ = real("sgx_quote")
        assert code_of(kind.verify, quote, endorsements, intel_root(kind), REAL_TIME) == "malformed-evidence"

    def test_zeros_behind_a_quote_are_taken_off_files_and_refused_in_evidence(self):
        padded = vector("tdx_quote")
        assert len(tdx.trim(padded)) == len(padded) - 70
        assert tdx.trim(padded + b"\1") == padded + b"\1"
        assert code_of(verify_real, "tdx_quote", change=lambda _: padded) == "malformed-quote"


@pytest.fixture(scope="module")
def hardware():
    return IntelHardware(NOW)


def stand_in(hardware, tee, quote, **collateral):
    endorsements = Endorsements(intel.read_collateral(hardware.collateral(tee, **collateral)))
    anchors = [Anchor(tee, "emulated", hardware.root.public_key(), test=True)]
    return KINDS[tee].verify(quote, endorsements, anchors, NOW)


class TestStandInHardware:
    @pytest.mark.parametrize("version", [4, 5])
    def test_a_domain_that_may_be_migrated_is_refused(self, hardware, version):
        assert stand_in(hardware, "tdx", hardware.tdx_quote(version=version))
        quote = hardware.tdx_quote(version=version, migratable=True)
        assert code_of(stand_in, hardware, "tdx", quote) == "migratable-platform"

    @pytest.mark.parametrize(
        ("collateral", "code"),
        [
            pytest.param({"status": "Revoked"}, "platform-revoked", id="the TCB level is revoked"),
            pytest.param({"revoked": True}, "platform-revoked", id="the PCK certificate is revoked"),
            pytest.param({"svn": 1}, "tcb-unknown", id="below every TCB level"),
        ],
    )
    @pytest.mark.parametrize("tee", ["sgx", "tdx"])
    def test_a_platform_that_the_vendor_gave_up(self, hardware, tee, collateral, code):
        quote = hardware.sgx_quote() if tee == "sgx" else hardware.tdx_quote()
        assert code_of(stand_in, hardware, tee, quote, **collateral) == code

    def test_a_status_is_told_and_left_to_the_policy(self, hardware):
        said = stand_in(hardware, "sgx", hardware.sgx_quote(), status="OutOfDate", advisories=("INTEL-SA-1",))
        assert said.tcb == Tcb("OutOfDate", ("INTEL-SA-1",))

    def test_a_guest_with_a_service_domain_is_refused(self, hardware):
        code_of(stand_in, hardware, "tdx", hardware.tdx_quote(version=5, service=b"s" * 48))

    @pytest.mark.parametrize("size", [0, 1, 0x7FFFFFFF, 0xFFFFFFFF], ids=hex)
    def test_absurd_lengths(self, hardware, size):
        quote = bytearray(hardware.sgx_quote())
        chain = bytes(quote).index(b"-----BEGIN")
        for place in (432, chain - 4):
            altered = quote[:place] + size.to_bytes(4, "little") + quote[place + 4 :]
            assert code_of(stand_in, hardware, "sgx", bytes(altered)) == "malformed-quote"

    def test_another_root_certificate_inside_the_quote(self, hardware):
        quote = hardware.sgx_quote()
        pem = hardware.root.public_bytes(Encoding.PEM)
        swapped = quote.replace(pem, IntelHardware(NOW).root.public_bytes(Encoding.PEM))
        if len(swapped) == len(quote):
            assert code_of(stand_in, hardware, "sgx", swapped) == "bad-quote-signature"
        else:
            assert code_of(stand_in, hardware, "sgx", swapped) == "malformed-quote"

    def test_the_newest_valid_collateral_is_used_whatever_the_sender_carries(self, hardware):
        older = intel.read_collateral(hardware.collateral("sgx"))
        newer = IntelHardware(NOW + 3600, vendor=hardware)
        current = intel.read_collateral(newer.collateral("sgx", status="OutOfDate"))
        anchors = [Anchor("sgx", "emulated", hardware.root.public_key(), test=True)]
        said = sgx.verify(hardware.sgx_quote(), Endorsements(older).also(current), anchors, NOW)
        assert said.tcb.status == "OutOfDate"


class TestTcbPolicy:
    ADVISORIES = ("INTEL-SA-00289", "INTEL-SA-00615")
    DAY = date(2025, 7, 19)

    def verify(self, now=REAL_TIME, **exception):
        kind, quote, endorsements = real("sgx_quote")
        exceptions = (TcbException(**exception),) if exception else ()
        policy = Policy(
            anchors=tuple(intel_root(kind)),
            runtime={"sgx": AnyOf(Reference({"mrenclave": sgx_mrenclave()}))},
            classes=frozenset({"sgx"}),
            trusted_apps=(),
            tcb={"sgx": exceptions},
        )
        return Verifier(policy, endorsements=endorsements).verify_quote("sgx", quote, now=now)

    @pytest.mark.parametrize(
        "exception",
        [
            pytest.param({}, id="no exception"),
            pytest.param({"status": "SWHardeningNeeded", "until": DAY}, id="another status"),
            pytest.param({"status": "ConfigurationAndSWHardeningNeeded", "until": DAY}, id="no advisory named"),
            pytest.param(
                {
                    "status": "ConfigurationAndSWHardeningNeeded",
                    "until": DAY,
                    "advisories": frozenset(ADVISORIES[:1]),
                },
                id="one advisory not named",
            ),
            pytest.param(
                {
                    "status": "ConfigurationAndSWHardeningNeeded",
                    "until": date(2025, 7, 18),
                    "advisories": frozenset(ADVISORIES),
                },
                id="yesterday",
            ),
        ],
    )
    def test_it_is_refused(self, exception):
        assert code_of(self.verify, **exception) == "tcb-not-accepted"

    def test_a_dated_exception_accepts_it(self):
        exception = {"status": "ConfigurationAndSWHardeningNeeded", "advisories": frozenset(self.ADVISORIES)}
        assert self.verify(until=self.DAY, **exception).anchor.platform_class == "sgx"
        assert self.verify(until=date.max, **exception).anchor.platform_class == "sgx"


def sgx_mrenclave():
    return detect(vector("sgx_quote"))[1][48 + 64 : 48 + 96]


class TestPolicyOfIntel:
    def anchored(self, *anchors, **changes):
        runtime = {"sgx": Reference({"mrenclave": b"e" * 32}), **changes.pop("runtime", {})}
        return Policy(anchors=anchors, runtime=runtime, classes=frozenset({"sgx"}), trusted_apps=(), **changes)

    def test_a_test_root_is_never_called_sgx(self, hardware):
        with pytest.raises(ConfigurationError, match="only vouch for class emulated"):
            self.anchored(Anchor("sgx", "sgx", hardware.root.public_key(), test=True))

    def test_no_other_root_can_be_pinned(self, hardware):
        with pytest.raises(ConfigurationError, match="test_root"):
            self.anchored(Anchor("sgx", "sgx", hardware.root.public_key()))

    def test_another_key_under_the_vendors_name(self, hardware):
        with pytest.raises(ConfigurationError, match="no root of kind sgx"):
            self.anchored(Anchor("sgx", "sgx", hardware.root.public_key(), name="intel-sgx-root"))

    def test_the_vendors_root_is_no_test_root(self):
        with pytest.raises(ConfigurationError, match="vendor's root"):
            self.anchored(Anchor("sgx", "emulated", intel.ROOTS["intel-sgx-root"], test=True))

    @pytest.mark.parametrize(
        "values",
        [
            {"mrsigner": b"s" * 32},
            {"mrsigner": b"s" * 32, "isvprodid": 1},
            {"isvprodid": 1, "minimum_isvsvn": 1},
            {},
        ],
        ids=["signer alone", "no security version", "no signer", "nothing"],
    )
    def test_a_reference_value_that_names_no_code(self, values):
        with pytest.raises(ConfigurationError, match="must name all of"):
            self.anchored(runtime={"sgx": Reference(values)})
