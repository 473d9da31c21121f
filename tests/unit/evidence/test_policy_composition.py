"""Policies compose: `a & b` accepts what both accept, and nothing else."""

from __future__ import annotations

import dataclasses
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence.anchors import Anchor, Tcb
from edgeclave.evidence.eat import report_data
from edgeclave.evidence.intel import ROOTS
from edgeclave.evidence.policy import FRESHNESS, Policy, TcbException, TrustedApp
from edgeclave.evidence.reference import AnyOf, Reference, UnsafeAnyRuntime
from edgeclave.evidence.verifier import Verifier
from tests.fixtures.benches import FOREIGN, RUNTIME, EmulatorBench
from tests.fixtures.evidence_bench import IDENTITY, NONCE, NOW, Instance

BENCH, OTHER = EmulatorBench(), EmulatorBench()
ANCHORS = [Anchor("emulator", "emulated", bench.key.public_key()) for bench in (BENCH, OTHER)]
INSTANCE = Instance(BENCH)
DIGEST = b"r" * 32


def evidence(*, bench=BENCH, foreign=False, debug=False, **claims):
    identity = claims.pop("identity", IDENTITY)
    instance = Instance(bench)
    eat = instance.eat(identity=dataclasses.replace(identity, debug=debug), **claims)
    return instance.evidence(eat=eat, quote=bench.quote(report_data(eat), foreign_runtime=foreign, debug=debug))


EVIDENCE = [
    evidence(),
    evidence(bench=OTHER),
    evidence(foreign=True),
    evidence(debug=True),
    evidence(nonce=None),
    evidence(identity=dataclasses.replace(IDENTITY, security_version=1)),
    evidence(identity=dataclasses.replace(IDENTITY, security_version=9)),
    evidence(identity=dataclasses.replace(IDENTITY, product_id=8)),
    evidence(identity=dataclasses.replace(IDENTITY, unique_id=b"v" * 32)),
    evidence(recipients={"out": (1, DIGEST)}),
    evidence(recipients={"out": (5, DIGEST), "other": (1, DIGEST)}),
]

TRUSTED_APPS = st.one_of(
    st.builds(
        TrustedApp,
        st.just(IDENTITY.signer_id),
        st.sampled_from([7, 8]),
        minimum_security_version=st.sampled_from([0, 2, 5]),
    ),
    st.builds(
        TrustedApp,
        unique_id=st.sampled_from([b"u" * 32, b"v" * 32]),
        minimum_security_version=st.sampled_from([0, 2, 5]),
    ),
)
RUNTIMES = st.sampled_from(
    [
        UnsafeAnyRuntime(),
        Reference({"digest": RUNTIME}),
        Reference({"digest": FOREIGN}),
        AnyOf(Reference({"digest": RUNTIME}), Reference({"digest": FOREIGN})),
    ]
)
POLICIES = st.builds(
    Policy,
    anchors=st.lists(st.sampled_from(ANCHORS), unique_by=id).map(tuple),
    runtime=st.fixed_dictionaries({"emulator": RUNTIMES}),
    classes=st.sampled_from([frozenset({"emulated"}), frozenset({"emulated", "sgx"}), frozenset({"sgx"}), frozenset()]),
    trusted_apps=st.lists(TRUSTED_APPS, max_size=3).map(tuple),
    debug=st.booleans(),
    freshness=st.sampled_from(FRESHNESS),
    maximum_age_seconds=st.sampled_from([1, 100, 1000]),
    minimum_recipients=st.dictionaries(st.sampled_from(["out", "other"]), st.integers(0, 6)),
)


def accepts(policy, evidence, nonce, age):
    try:
        Verifier(policy, published={NONCE: NOW - age}).verify(evidence, nonce=nonce, now=NOW)
    except EvidenceError:
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(POLICIES, POLICIES, st.sampled_from(EVIDENCE), st.sampled_from([None, NONCE]), st.sampled_from([0, 50, 500]))
def test_it_accepts_what_both_accept(ours, theirs, evidence, nonce, age):
    both = accepts(ours, evidence, nonce, age) and accepts(theirs, evidence, nonce, age)
    assert accepts(ours & theirs, evidence, nonce, age) == both
    assert accepts(theirs & ours, evidence, nonce, age) == both


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(EVIDENCE), min_size=3), POLICIES)
def test_a_policy_with_itself_is_itself(evidence, policy):
    for each in evidence:
        assert accepts(policy & policy, each, NONCE, 0) == accepts(policy, each, NONCE, 0)


def test_some_are_accepted_by_both():
    """Or else the properties above would say nothing."""
    policy = BENCH.policy()
    assert accepts(policy & policy, EVIDENCE[0], NONCE, 0)


ADVISORIES = st.frozensets(st.sampled_from(["A", "B"]))
EXCEPTIONS = st.lists(
    st.builds(
        TcbException,
        st.sampled_from(["OutOfDate", "Other"]),
        st.sampled_from([date(2025, 1, 1), date(2026, 1, 1)]),
        ADVISORIES,
    ),
    max_size=3,
)


@given(
    EXCEPTIONS,
    EXCEPTIONS,
    st.sampled_from(["UpToDate", "OutOfDate"]),
    ADVISORIES,
    st.sampled_from([1700000000, 1750000000]),
)
def test_tcb_statuses(ours, theirs, status, advisories, now):
    tcb = Tcb(status, tuple(sorted(advisories)))
    policies = [dataclasses.replace(BENCH.policy(), tcb={"sgx": tuple(each)}) for each in (ours, theirs)]
    accepted = [policy.tcb_objection("sgx", tcb, now) is None for policy in policies]
    assert ((policies[0] & policies[1]).tcb_objection("sgx", tcb, now) is None) == all(accepted)


class TestDevices:
    def policy(self, devices, device=None):
        anchor = dataclasses.replace(BENCH.policy().anchors[0], device=device)
        return dataclasses.replace(BENCH.policy(), anchors=(anchor,), devices=devices)

    def test_every_binding_stays(self):
        both = self.policy({b"1": "edge01"}, "edge01") & self.policy({b"2": "edge02"})
        assert both.devices == {b"1": "edge01", b"2": "edge02"}
        assert both.anchors[0].device == "edge01"

    @pytest.mark.parametrize(("first", "second"), [({b"1": "a"}, {b"1": "b"}), (None, None)])
    def test_one_platform_is_never_two_devices(self, first, second):
        ours, theirs = self.policy(first or {}, "a"), self.policy(second or {}, "a" if first else "b")
        with pytest.raises(ConfigurationError, match="bad-policy"):
            ours & theirs


def test_one_key_under_two_classes_is_accepted_by_neither():
    root = ROOTS["intel-sgx-root"]
    policies = [
        Policy((Anchor("tdx", each, root, name="intel-sgx-root"),), {"tdx": UnsafeAnyRuntime()}, frozenset({each}), ())
        for each in ("tdx", "shared-guest")
    ]
    assert (policies[0] & policies[1]).anchors == ()
