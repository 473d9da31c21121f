"""Who may do what, from the module twin.

Rules:

1. What no statement allows is denied.
2. A statement that denies wins over every statement that allows.
3. Identities match exactly: `{{iot:this_device_id}}/<module>`, `azureiot://<hub>/devices/<d>/modules/<m>`, or `iothub`
   (a direct method, whoever in the cloud may call them).
4. Operations: `invoke:<app>/<method>`, `acknowledge:<app>`, `evidence:<app>`, `list`. A trailing `*` in a name stands
   for any rest of that name and never reaches over the `/`; `invoke:*` is short for `invoke:*/*`.
5. Resources name trusted applications, with the same trailing `*`; all of them when left out.

>>> statement = {"effect": "allow", "identities": ["iothub"], "operations": ["invoke:anomaly/*"]}
>>> document = msgspec.convert({"statements": {"operator": statement}}, PolicyDocument)
>>> policy = Policy(document, hub="hub.example", device="edge01")
>>> policy.decide("iothub", "invoke:anomaly/status", "anomaly")
Decision(allowed=True, statement='operator', reason="statement 'operator' allows it")
>>> policy.decide("iothub", "evidence:anomaly", "anomaly").reason
'no statement allows it'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import msgspec

from edgeclave.edge.identity import SCHEME, IdentityError, ModuleIdentity
from edgeclave.errors import ConfigurationError

IOTHUB = "iothub"
"""The identity of direct methods."""
THIS_DEVICE = "{{iot:this_device_id}}/"
MAX_STATEMENTS = 256
MAX_ENTRIES = 64
"""Identities, operations or resources in one statement."""
MAX_CACHED_DECISIONS = 4096

_NAME = re.compile(r"(?:[A-Za-z0-9._-]{1,128}\*?|\*)\Z")
_KINDS_WITH_APP = ("acknowledge", "evidence")

_Entries = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=600)], ...], msgspec.Meta(max_length=MAX_ENTRIES)]


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One statement as it stands in the twin."""

    effect: Literal["allow", "deny"]
    identities: Annotated[_Entries, msgspec.Meta(min_length=1)]
    operations: Annotated[_Entries, msgspec.Meta(min_length=1)]
    resources: Annotated[_Entries, msgspec.Meta(min_length=1)] = ("*",)


class PolicyDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The twin's `policy`: statements by name, so that layered deployments merge."""

    statements: Annotated[dict[str, Statement], msgspec.Meta(max_length=MAX_STATEMENTS)] = {}


class Decision(NamedTuple):
    """Whether it is allowed, which statement decided (None: none matched), and that in words."""

    allowed: bool
    statement: str | None
    reason: str


@dataclass(frozen=True)
class _Compiled:
    name: str
    allows: bool
    identities: frozenset[str]
    operations: tuple[re.Pattern[str], ...]
    resources: tuple[re.Pattern[str], ...]

    def matches(self, identity: str, operation: str, resource: str | None) -> bool:
        return (
            identity in self.identities
            and any(pattern.fullmatch(operation) for pattern in self.operations)
            and (resource is None or any(pattern.fullmatch(resource) for pattern in self.resources))
        )

    def matches_wholly(self, identity: str, operation: str) -> bool:
        """Whether it matches for every resource there is."""
        return self.matches(identity, operation, None) and any(p.pattern == _pattern("*") for p in self.resources)


class Policy:
    """A policy ready to decide, for the modules of one device.

    Raises:
        ConfigurationError: malformed-identity, malformed-operation, malformed-resource; `where` names the statement.
    """

    def __init__(self, document: PolicyDocument, *, hub: str, device: str) -> None:
        compiled = [
            _compile(name, statement, hub=hub, device=device) for name, statement in document.statements.items()
        ]
        self._denying = [statement for statement in compiled if not statement.allows]
        self._allowing = [statement for statement in compiled if statement.allows]
        self._decisions: dict[tuple[str, str, str | None], Decision] = {}
        self.statement_count = len(compiled)

    def decide(self, identity: str, operation: str, resource: str | None) -> Decision:
        """Decide one operation.

        Args:
            identity: the caller as `str(ModuleIdentity)`, or IOTHUB.
            operation: `invoke:anomaly/observe` and the like, without wildcards.
            resource: the trusted application; None for `list` as such, which then is allowed when some application may
                be listed, and denied by a statement that denies all of them.
        """
        key = (identity, operation, resource)
        decision = self._decisions.get(key)
        if decision is None:
            if len(self._decisions) >= MAX_CACHED_DECISIONS:
                self._decisions.clear()
            decision = self._decisions[key] = self._decide(identity, operation, resource)
        return decision

    def _decide(self, identity: str, operation: str, resource: str | None) -> Decision:
        for statement in self._denying:
            denies = (
                statement.matches_wholly(identity, operation)
                if resource is None
                else statement.matches(identity, operation, resource)
            )
            if denies:
                return Decision(False, statement.name, f"statement {statement.name!r} denies it")
        for statement in self._allowing:
            if statement.matches(identity, operation, resource):
                return Decision(True, statement.name, f"statement {statement.name!r} allows it")
        return Decision(False, None, "no statement allows it")


def _compile(name: str, statement: Statement, *, hub: str, device: str) -> _Compiled:
    where = f"policy.statements.{name}"
    return _Compiled(
        name,
        statement.effect == "allow",
        frozenset(_identity(text, hub, device, where) for text in statement.identities),
        tuple(re.compile(_operation(text, where)) for text in statement.operations),
        tuple(re.compile(_resource(text, where)) for text in statement.resources),
    )


def _identity(text: str, hub: str, device: str, where: str) -> str:
    if text == IOTHUB:
        return text
    try:
        full = (
            f"{SCHEME}{hub}/devices/{device}/modules/{text[len(THIS_DEVICE) :]}"
            if text.startswith(THIS_DEVICE)
            else text
        )
        return str(ModuleIdentity.parse(full))
    except IdentityError as error:
        raise ConfigurationError(
            "malformed-identity",
            f"{text!r} is no identity",
            where=where,
            advice=f"write {THIS_DEVICE}<module>, {SCHEME}<hub>/devices/<device>/modules/<module>, or {IOTHUB}",
        ) from error


def _operation(text: str, where: str) -> str:
    kind, colon, rest = text.partition(":")
    if text == "list":
        return "list"
    if kind == "invoke" and colon:
        app, slash, method = ("*", "/", "*") if rest == "*" else rest.partition("/")
        if slash and _NAME.match(app) and _NAME.match(method):
            return f"invoke:{_pattern(app)}/{_pattern(method)}"
    if kind in _KINDS_WITH_APP and colon and _NAME.match(rest):
        return f"{kind}:{_pattern(rest)}"
    raise ConfigurationError(
        "malformed-operation",
        f"{text!r} is no operation",
        where=where,
        advice="write invoke:<app>/<method>, acknowledge:<app>, evidence:<app> or list; names may end with *",
    )


def _resource(text: str, where: str) -> str:
    if not _NAME.match(text):
        raise ConfigurationError(
            "malformed-resource",
            f"{text!r} is no name of a trusted application",
            where=where,
            advice="write a name; it may end with *",
        )
    return _pattern(text)


def _pattern(name: str) -> str:
    return re.escape(name[:-1]) + "[^/]*" if name.endswith("*") else re.escape(name)
