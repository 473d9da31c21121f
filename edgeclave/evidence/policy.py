"""Which evidence a relying party accepts. Deny by default: what the policy does not name is refused.

A policy is a `Policy` value, or one TOML file that `policy_file` reads (`edgeclave policy init` writes one). Policies
compose: `company & project` accepts what both accept, so that nobody who adds a policy can widen another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from typing import Any, Literal, TypeVar, get_args

from edgeclave.errors import ConfigurationError
from edgeclave.evidence.anchors import UP_TO_DATE, Anchor, PlatformClass, Tcb
from edgeclave.evidence.kinds import KINDS
from edgeclave.evidence.reference import Rule, UnsafeAnyRuntime, all_of
from edgeclave.ta.identity import Identity

Freshness = Literal["nonce", "beacon", "unknown"]
FRESHNESS: tuple[Freshness, ...] = get_args(Freshness)
"""The strictest first."""
DEFAULT_MAXIMUM_AGE_SECONDS = 86_400
_DIFFERENT = object()


@dataclass(frozen=True)
class TrustedApp:
    """Accepts one unique_id, or every version of a product from `minimum_security_version` on; both only where composed
    policies name the one and the other.
    """

    signer_id: bytes | None = None
    product_id: int | None = None
    unique_id: bytes | None = None
    minimum_security_version: int = 0

    def names(self, identity: Identity) -> bool:
        """Whether the rule is about this trusted application, whatever its security version."""
        by_code, by_product = self.unique_id is not None, (self.signer_id, self.product_id) != (None, None)
        return (
            (by_code or by_product)
            and (not by_code or self.unique_id == identity.unique_id)
            and (not by_product or (self.signer_id, self.product_id) == (identity.signer_id, identity.product_id))
        )

    def __and__(self, other: TrustedApp) -> TrustedApp | None:
        """What both accept; None if there is no such trusted application."""
        signer_id, product_id, unique_id = (
            _same(getattr(self, name), getattr(other, name)) for name in ("signer_id", "product_id", "unique_id")
        )
        if _DIFFERENT in (signer_id, product_id, unique_id):
            return None
        floor = max(self.minimum_security_version, other.minimum_security_version)
        return TrustedApp(signer_id, product_id, unique_id, floor)


@dataclass(frozen=True)
class TcbException:
    """Accepts a TCB status other than up to date, until the end of a day (UTC), with no advisories but the named."""

    status: str
    until: date
    advisories: frozenset[str] = frozenset()

    def objection(self, tcb: Tcb, now: int) -> str | None:
        """What keeps the exception from covering a platform at `now` (s since 1970); None if it covers it."""
        if tcb.status != self.status:
            return f"the exception is for {self.status}"
        if now > datetime.combine(self.until, time.max, UTC).timestamp():
            return f"the exception for {self.status} ended on {self.until}"
        others = [advisory for advisory in tcb.advisories if advisory not in self.advisories]
        return f"the exception does not name {', '.join(others)}" if others else None

    def __and__(self, other: TcbException) -> TcbException | None:
        """What both accept; None for different statuses."""
        if self.status != other.status:
            return None
        return TcbException(self.status, min(self.until, other.until), self.advisories & other.advisories)


@dataclass(frozen=True)
class Policy:
    """What is accepted.

    Args:
        anchors: where trust begins.
        runtime: the measured code accepted, per kind; there is no default.
        classes: classes of platform accepted (PROTOCOL section 3).
        trusted_apps: trusted applications accepted; one rule is enough.
        tcb: TCB statuses accepted besides up to date, per kind; one exception is enough.
        devices: platform_instance to the IoT Hub device id bound to it at enrolment, for platforms under a root.
        debug: whether platforms and trusted applications that can be debugged are accepted.
        freshness: what must be shown; `unknown` accepts any age.
        maximum_age_seconds: since the nonce was issued or the beacon published.
        minimum_recipients: an output to the oldest recipient set that results may be sealed to.
    """

    anchors: tuple[Anchor, ...]
    runtime: Mapping[str, Rule]
    classes: frozenset[PlatformClass]
    trusted_apps: tuple[TrustedApp, ...]
    tcb: Mapping[str, tuple[TcbException, ...]] = field(default_factory=dict)
    devices: Mapping[bytes, str] = field(default_factory=dict)
    debug: bool = False
    freshness: Freshness = "beacon"
    maximum_age_seconds: int = DEFAULT_MAXIMUM_AGE_SECONDS
    minimum_recipients: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigurationError `bad-policy` when an anchor is ambiguous or could never verify anything."""
        for anchor in self.anchors:
            _check_anchor(anchor)
            if anchor.kind not in self.runtime:
                raise bad_policy("runtime", f"no runtime reference value for kind {anchor.kind}")
        seen = {(anchor.kind if anchor.is_root else "", anchor.fingerprint) for anchor in self.anchors}
        if len(seen) != len(self.anchors):
            raise bad_policy("anchors", "one key stands in two anchors; a key has one kind and one class")
        for name, rule in self.runtime.items():
            _check_runtime(name, rule)

    def __and__(self, other: Policy) -> Policy:
        """Accepts what both policies accept, and nothing else.

        Raises:
            ConfigurationError: `bad-policy`, if they bind one platform to different devices.
        """
        both = [
            replace(anchor, device=_one_device(anchor.fingerprint, anchor.device, same.device))
            for anchor in self.anchors
            for same in other.anchors
            if _is_same(anchor, same)
        ]
        devices = {
            instance: _one_device(instance, self.devices.get(instance), other.devices.get(instance))
            for instance in {**self.devices, **other.devices}
        }
        recipients = {**self.minimum_recipients, **other.minimum_recipients}
        return Policy(
            anchors=tuple(both),
            runtime={
                kind: all_of(rule, other.runtime[kind]) for kind, rule in self.runtime.items() if kind in other.runtime
            },
            classes=self.classes & other.classes,
            trusted_apps=_pairs(self.trusted_apps, other.trusted_apps),
            tcb={kind: _pairs(self.tcb[kind], other.tcb[kind]) for kind in self.tcb.keys() & other.tcb.keys()},
            devices={instance: device for instance, device in devices.items() if device is not None},
            debug=self.debug and other.debug,
            freshness=min(self.freshness, other.freshness, key=FRESHNESS.index),
            maximum_age_seconds=min(self.maximum_age_seconds, other.maximum_age_seconds),
            minimum_recipients={
                output: max(self.minimum_recipients.get(output, 0), other.minimum_recipients.get(output, 0))
                for output in recipients
            },
        )

    def tcb_objection(self, kind: str, tcb: Tcb, now: int) -> str | None:
        """Why the policy does not accept this status at `now` (s since 1970); None if it does."""
        if tcb.status == UP_TO_DATE and not tcb.advisories:
            return None
        objections = [exception.objection(tcb, now) for exception in self.tcb.get(kind, ())]
        if None in objections:
            return None
        return "; ".join(text for text in objections if text) or "the policy has no exception for it"


_Restriction = TypeVar("_Restriction", TrustedApp, TcbException)


def _pairs(ours: Sequence[_Restriction], theirs: Sequence[_Restriction]) -> tuple[_Restriction, ...]:
    """Each side accepts what one of its rules accepts; so both accept what a pair of rules does."""
    pairs = (mine & other for mine in ours for other in theirs)
    return tuple(dict.fromkeys(pair for pair in pairs if pair is not None))


def _same(ours: Any, theirs: Any) -> Any:
    return theirs if ours is None else ours if theirs in (None, ours) else _DIFFERENT


def _is_same(ours: Anchor, theirs: Anchor) -> bool:
    return (ours.kind, ours.platform_class, ours.fingerprint, ours.name, ours.test) == (
        theirs.kind, theirs.platform_class, theirs.fingerprint, theirs.name, theirs.test,
    )  # fmt: skip


def _one_device(platform: bytes, ours: str | None, theirs: str | None) -> str | None:
    device = _same(ours, theirs)
    if device is _DIFFERENT:
        raise bad_policy(f"platform {platform.hex()}", f"the policies bind it to {ours} and to {theirs}")
    return None if device is None else str(device)


def bad_policy(where: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        "bad-policy", what, where=where, advice="see `edgeclave policy init --help` for a complete one"
    )


def _check_anchor(anchor: Anchor) -> None:
    kind = KINDS.get(anchor.kind)
    if kind is None:
        raise bad_policy("anchors", f"unknown kind {anchor.kind!r}; known are {', '.join(KINDS)}")
    vendors = {fingerprint for each in KINDS.values() for fingerprint in each.roots.values()}
    if anchor.test:
        if anchor.platform_class != "emulated":
            raise bad_policy("anchors", f"a test root can only vouch for class emulated, not {anchor.platform_class}")
        if anchor.fingerprint in vendors:
            raise bad_policy("anchors", "the test root is a vendor's root; name it by `root`")
        return
    if anchor.platform_class not in kind.classes:
        raise bad_policy("anchors", f"an anchor of kind {anchor.kind} cannot vouch for class {anchor.platform_class}")
    if anchor.name:
        if kind.roots.get(anchor.name) != anchor.fingerprint:
            raise bad_policy("anchors", f"{anchor.name} is no root of kind {anchor.kind}")
    elif kind.pins is None:
        raise bad_policy(
            "anchors",
            f"for kind {anchor.kind} only {' or '.join(kind.roots)} can vouch; another root can only be a `test_root`",
        )
    elif isinstance(anchor.key, bytes) or not kind.pins(anchor.key):
        raise bad_policy("anchors.public_key", f"not a key that evidence of kind {anchor.kind} is signed with")


def _check_runtime(name: str, rule: Rule) -> None:
    kind = KINDS.get(name)
    if kind is None:
        raise bad_policy(f"runtime.{name}", f"unknown kind; known are {', '.join(KINDS)}")
    if isinstance(rule, UnsafeAnyRuntime):
        return
    ways = rule.alternatives()
    if not ways:
        raise bad_policy(f"runtime.{name}", "no runtime reference value is named")
    for named in ways:
        if not any(identifying <= named for identifying in kind.identifying):
            sets = " or ".join("(" + ", ".join(sorted(names)) + ")" for names in kind.identifying)
            raise bad_policy(f"runtime.{name}", f"a reference value must name all of {sets}")
