"""What a policy says about platforms: roots, measured registers, TCB exceptions, enrolled devices."""

from __future__ import annotations

from datetime import date

import pytest

from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence.anchors import Tcb
from edgeclave.evidence.intel import ROOTS
from edgeclave.evidence.policy import TcbException
from edgeclave.evidence.policy_file import load_policy
from edgeclave.evidence.reference import AllOf, AnyOf, Reference
from tests.fixtures.benches import IntelBench
from tests.fixtures.evidence_bench import NOW, Instance, verify
from tests.fixtures.intel_hardware import IntelHardware

MRTD, PLATFORM = "cd" * 48, "ab" * 16
GOOD = f"""
classes = ["sgx", "tdx"]

[[anchors]]
kind = "sgx"
class = "sgx"
root = "intel-sgx-root"

[[anchors]]
kind = "tdx"
class = "tdx"
root = "intel-sgx-root"

[devices]
edge01 = ["{PLATFORM}"]

[[runtime.sgx]]
mrsigner = "{"cd" * 32}"
isvprodid = 1
minimum_isvsvn = 3

[[runtime.sgx]]
mrenclave = "{"ef" * 32}"

[[runtime.tdx]]
mrtd = "{MRTD}"
rtmr0 = "{MRTD}"
rtmr1 = "{MRTD}"
rtmr2 = "{MRTD}"
rtmr3 = "{MRTD}"

[[tcb.sgx]]
status = "SWHardeningNeeded"
until = 2026-12-31
advisories = ["INTEL-SA-00615"]

[[trusted_apps]]
unique_id = "{"ab" * 32}"
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "test-root.pem").write_text(IntelHardware(NOW).root_pem)

    def write(text):
        (tmp_path / "policy.toml").write_text(text)
        return tmp_path / "policy.toml"

    return write


def test_a_whole_policy(write):
    policy = load_policy(write(GOOD))
    assert [(anchor.kind, anchor.name, anchor.fingerprint) for anchor in policy.anchors] == [
        ("sgx", "intel-sgx-root", ROOTS["intel-sgx-root"]),
        ("tdx", "intel-sgx-root", ROOTS["intel-sgx-root"]),
    ]
    assert policy.devices == {b"\xab" * 16: "edge01"}
    assert policy.runtime["sgx"] == AnyOf(
        Reference({"mrsigner": b"\xcd" * 32, "isvprodid": 1, "minimum_isvsvn": 3}),
        Reference({"mrenclave": b"\xef" * 32}),
    )
    assert policy.tcb == {
        "sgx": (TcbException("SWHardeningNeeded", date(2026, 12, 31), frozenset({"INTEL-SA-00615"})),)
    }


def test_a_test_root_stands_in_class_emulated(write):
    text = GOOD.replace('class = "sgx"\nroot = "intel-sgx-root"', 'class = "emulated"\ntest_root = "test-root.pem"')
    anchor = load_policy(write(text)).anchors[0]
    assert (anchor.test, anchor.platform_class, anchor.is_root) == (True, "emulated", True)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        pytest.param('class = "sgx"\nroot', 'class = "sgx"\ntest_root', "test_root", id="a vendor's name as test root"),
        pytest.param(
            'class = "sgx"\nroot = "intel-sgx-root"',
            'class = "sgx"\ntest_root = "test-root.pem"',
            "emulated",
            id="a test root called sgx",
        ),
        pytest.param('"intel-sgx-root"\n\n[dev', '"amd-root"\n\n[dev', "anchors.root", id="an unknown root"),
        pytest.param('root = "intel-sgx-root"\n\n[dev', "\n[dev", "exactly one", id="an anchor without a key"),
        pytest.param(
            'root = "intel-sgx-root"\n\n[dev',
            'root = "intel-sgx-root"\npublic_key = "test-root.pem"\n\n[dev',
            "exactly one",
            id="an anchor with two",
        ),
        pytest.param(
            'root = "intel-sgx-root"\n\n[dev',
            'root = "intel-sgx-root"\ndevice = "edge01"\n\n[dev',
            "anchors.device",
            id="a root bound to one device",
        ),
        pytest.param('class = "tdx"', 'class = "sgx"', "class sgx", id="a class that TDX cannot have"),
        pytest.param(f'["{PLATFORM}"]', f'["{PLATFORM}"]\nedge02 = ["{PLATFORM}"]', "two devices", id="bound twice"),
        pytest.param(f'["{PLATFORM}"]', '["AB"]', "devices", id="no platform"),
        pytest.param("minimum_isvsvn = 3", "", "must name all of", id="a signer without security version"),
        pytest.param("minimum_isvsvn", "minimum_mrsigner", "minimum_mrsigner", id="a minimum of a digest"),
        pytest.param("minimum_isvsvn = 3", "minimum_isvsvn = -1", "minimum_isvsvn", id="a negative number"),
        pytest.param("minimum_isvsvn = 3", 'minimum_isvsvn = "3"', "minimum_isvsvn", id="a number as text"),
        pytest.param("mrenclave =", "mrenclaves =", "mrenclaves", id="an unknown register"),
        pytest.param("ef" * 32, "ef" * 31, "mrenclave", id="a short register"),
        pytest.param("ef" * 32, "EF" * 32, "mrenclave", id="upper case hex"),
        pytest.param(f'rtmr3 = "{MRTD}"', "", "rtmr3", id="not all of the RTMRs"),
        pytest.param("[[tcb.sgx]]", "[[tcb.abacus]]", "abacus", id="TCB of an unknown kind"),
        pytest.param("until = 2026-12-31\n", "", "until", id="an exception without end"),
        pytest.param("until = 2026-12-31", 'until = "later"', "until", id="an end that is no date"),
        pytest.param('advisories = ["INTEL-SA-00615"]', "", "advisories", id="an exception for any advisory"),
        pytest.param("[[runtime.tdx]]", "[[runtime.abacus]]", "runtime", id="reference values of an unknown kind"),
    ],
)
def test_a_mistake_is_named(write, old, new, named):
    assert old in GOOD
    with pytest.raises(ConfigurationError) as refused:
        load_policy(write(GOOD.replace(old, new)))
    assert refused.value.code == "bad-policy"
    assert named in str(refused.value)


class TestTcbException:
    EXCEPTION = TcbException("OutOfDate", date(2026, 3, 31), frozenset({"A", "B"}))
    MIDNIGHT = 1_775_001_600  # 2026-04-01 00:00 UTC

    @pytest.mark.parametrize(
        ("tcb", "now", "objection"),
        [
            pytest.param(Tcb("OutOfDate", ("A",)), MIDNIGHT - 1, None, id="the last second of the last day"),
            pytest.param(Tcb("OutOfDate", ("A",)), MIDNIGHT, "ended on 2026-03-31", id="the first second after it"),
            pytest.param(Tcb("OutOfDate"), 0, None, id="no advisory"),
            pytest.param(Tcb("OutOfDate", ("A", "C")), 0, "does not name C", id="one advisory more"),
            pytest.param(Tcb("Revoked"), 0, "is for OutOfDate", id="another status"),
        ],
    )
    def test_it_covers_what_it_names_until_its_day_ends(self, tcb, now, objection):
        said = self.EXCEPTION.objection(tcb, now)
        assert said is None if objection is None else objection in said


class TestReferences:
    MEASURED = {"code": b"c" * 32, "svn": 3}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("rule", "accepted"),
        [
            (Reference({"code": b"c" * 32}), True),
            (Reference({"code": b"c" * 32, "svn": 3}), True),
            (Reference({"code": b"c" * 32, "minimum_svn": 2}), True),
            (Reference({"code": b"c" * 32, "minimum_svn": 4}), False),
            (Reference({"code": b"d" * 32}), False),
            (Reference({"other": b"c" * 32}), False),
            (Reference({"svn": b"\3"}), False),
            (Reference({"minimum_other": 1}), False),
            (AnyOf(), False),
            (AnyOf(Reference({"code": b"d" * 32}), Reference({"code": b"c" * 32})), True),
            (AllOf(Reference({"code": b"c" * 32}), AnyOf(Reference({"svn": 3}), Reference({"svn": 4}))), True),
            (AllOf(Reference({"code": b"c" * 32}), AnyOf(Reference({"svn": 4}), Reference({"svn": 5}))), False),
        ],
    )
    def test_what_they_accept(self, rule, accepted):
        assert (rule.differences(self.MEASURED) == []) is accepted

    def test_each_way_to_be_accepted_is_named(self):
        rule = AllOf(Reference({"a": 1}), AnyOf(Reference({"b": 1}), Reference({"minimum_c": 1})))
        assert rule.alternatives() == [frozenset({"a", "b"}), frozenset({"a", "c"})]


class TestEnrolment:
    """Relay: under a vendor's root any platform verifies, so a device is told by its platform_instance."""

    def test_an_enrolled_platform_may_send_for_its_device_only(self):
        bench = IntelBench("sgx", 3)
        policy = bench.policy(devices={bench.hardware.ppid: "edge01"})
        result = verify(bench, Instance(bench).evidence(), policy=policy)
        assert result.device == "edge01"
        result.require_device("edge01")
        with pytest.raises(EvidenceError, match="wrong-device"):
            result.require_device("edge02")

    def test_a_platform_that_is_bound_to_no_device_sends_for_none(self):
        bench = IntelBench("sgx", 3)
        result = verify(bench, Instance(bench).evidence(), policy=bench.policy(devices={b"x" * 16: "edge01"}))
        with pytest.raises(EvidenceError, match="not-enrolled") as refused:
            result.require_device("edge01")
        assert bench.hardware.ppid.hex() in refused.value.advice
