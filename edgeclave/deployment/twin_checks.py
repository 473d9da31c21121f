"""Module twins: what IoT Hub would refuse, and, for the suite's own modules, what they themselves would.

The modules' own parsers decide (`edgeclave.edge.twins`); this adds the place of each fault and names that were
probably meant. A layer may give a part of an entry, of which only that part is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

import msgspec

from edgeclave.deployment.document import nearest, suggestion
from edgeclave.deployment.findings import Report
from edgeclave.deployment.known_modules import ENCLAVE_BROKER, TA_RUNNER
from edgeclave.deployment.manifest import WHOLE, expect_object
from edgeclave.deployment.structure import check_object, check_value, fields_of
from edgeclave.deployment.twin_limits import MAX_PROPERTIES_BYTES, Path, faults, size_bytes
from edgeclave.edge.twins.access_policy import IOTHUB, MAX_STATEMENTS, THIS_DEVICE, Policy, PolicyDocument, Statement
from edgeclave.edge.twins.enclave_broker import Quotas
from edgeclave.edge.twins.trusted_apps import TrustedAppSettings, read_desired

_APPS = "trustedApps"
_NAMED_APP = re.compile(r"(?:invoke|acknowledge|evidence):(?P<app>[^/*]+)(?:/.*)?")


def check_twin(section: dict[str, Any], path: Path, report: Report) -> None:
    """Names, values, depth and size of what one module gets."""
    for key, value in section.items():
        if key != WHOLE and not (key.startswith(f"{WHOLE}.") and all(parts_of(key))):
            report.error((*path, key), f"the name {key!r} is not known here", f"write {WHOLE}, or a path below it")
            continue
        if key == WHOLE:
            expect_object(value, (*path, key), report)
        for fault in faults(value):
            report.error((*path, key, *fault.path), fault.what, fault.advice)
        check_size(value, (*path, key), report)


def check_size(value: object, path: Path, report: Report) -> None:
    if (size := size_bytes(value)) > MAX_PROPERTIES_BYTES:
        what = f"has {size} bytes, the limit of desired properties is {MAX_PROPERTIES_BYTES}"
        report.error(path, what, "leave out what the module has as its default", code="twin-too-large")


def check_known_twin(kind: str, section: dict[str, Any], path: Path, report: Report) -> None:
    """The twin of a module of this suite, by the module's own rules."""
    check = {TA_RUNNER: _check_runner, ENCLAVE_BROKER: _check_broker}.get(kind)
    for key, value in section.items() if check else ():
        if check and (key == WHOLE or key.startswith(f"{WHOLE}.")):
            check(parts_of(key), value, (*path, key), report)


def check_policy_names(
    broker: Mapping[str, Any], path: Path, report: Report, *, modules: Set[str], trusted_apps: Set[str]
) -> None:
    """Statements about modules and trusted applications that are not there: legal, and usually a typing mistake."""
    whole = broker.get(WHOLE)
    policy = whole.get("policy") if isinstance(whole, dict) else None
    statements = policy.get("statements") if isinstance(policy, dict) else None
    for name, statement in statements.items() if isinstance(statements, dict) else ():
        place = (*path, WHOLE, "policy", "statements", name)
        for index, identity in enumerate(_strings(statement, "identities")):
            module = identity.removeprefix(THIS_DEVICE)
            if identity.startswith(THIS_DEVICE) and module not in modules:
                _warn(
                    f"{module!r} is no module of this deployment",
                    module,
                    modules,
                    (*place, "identities", index),
                    report,
                )
        for index, operation in enumerate(_strings(statement, "operations")):
            match = _NAMED_APP.fullmatch(operation)
            if match and trusted_apps and match["app"] not in trusted_apps:
                what = f"{match['app']!r} is no trusted application of this deployment"
                _warn(what, match["app"], trusted_apps, (*place, "operations", index), report)


def parts_of(key: str) -> list[str]:
    """The names below properties.desired in a path."""
    return key.removeprefix(WHOLE).split(".")[1:]


def trusted_apps_of(runner: Mapping[str, Any]) -> set[str]:
    whole = runner.get(WHOLE)
    apps = whole.get(_APPS) if isinstance(whole, dict) else None
    return set(apps) if isinstance(apps, dict) else set()


def _check_runner(parts: Sequence[str], value: Any, path: Path, report: Report) -> None:
    if not parts:
        desired = expect_object(value, path, report)
        for name in desired.keys() - {_APPS, "beacon"}:
            report.error((*path, name), f"the name {name!r} is not known here", suggestion(name, [_APPS, "beacon"]))
        for name in desired.keys() & {_APPS, "beacon"}:
            _check_runner([name], desired[name], (*path, name), report)
    elif parts == [_APPS]:
        for name, entry in expect_object(value, path, report).items():
            _check_runner([_APPS, name], entry, (*path, name), report)
        if isinstance(value, dict):
            _check_whole({_APPS: value}, path, report)
    elif parts == ["beacon"]:
        _check_whole({"beacon": value}, path, report)
    elif parts[0] != _APPS:
        report.error(path, f"the name {parts[0]!r} is not known here", suggestion(parts[0], [_APPS, "beacon"]))
    elif len(parts) == 2:
        if check_object(value, TrustedAppSettings, path, report):
            refused = read_desired({_APPS: {parts[1]: value}}).refused
            for error in refused.values():
                inside = error.where.removeprefix(f"desired.{_APPS}.{parts[1][:64]}").split(".")[1:]
                report.error((*path, *inside), error.what, error.advice, code=error.code)
    else:
        _check_part(TrustedAppSettings, parts[2:], value, path, report)


def _check_whole(desired: dict[str, Any], path: Path, report: Report) -> None:
    """What the runner says of its twin as a whole; of entries it was asked one by one."""
    if problem := read_desired(desired).problem:
        report.error(path, problem.what, problem.advice, code=problem.code)


def _check_broker(parts: Sequence[str], value: Any, path: Path, report: Report) -> None:
    known = ["policy", "quotas"]
    if not parts:
        desired = expect_object(value, path, report)
        for name in desired:
            _check_broker([name], desired[name], (*path, name), report)
    elif parts[0] not in known:
        report.error(path, f"the name {parts[0]!r} is not known here", suggestion(parts[0], known))
    elif parts == ["quotas"]:
        check_object(value, Quotas, path, report)
    elif parts[0] == "quotas":
        _check_part(Quotas, parts[1:], value, path, report)
    elif parts == ["policy"]:
        policy = expect_object(value, path, report)
        for name in policy:
            _check_broker(["policy", name], policy[name], (*path, name), report)
    elif parts[1] != "statements":
        report.error(path, f"the name {parts[1]!r} is not known here", "did you mean 'statements'?")
    elif len(parts) == 2:
        statements = expect_object(value, path, report)
        if len(statements) > MAX_STATEMENTS:
            report.error(path, f"has {len(statements)} statements, the limit is {MAX_STATEMENTS}", "join some")
        for name in statements:
            _check_broker(["policy", "statements", name], statements[name], (*path, name), report)
    elif len(parts) == 3:
        if check_object(value, Statement, path, report):
            _check_entries(parts[2], msgspec.convert(value, Statement), path, report)
    else:
        _check_part(Statement, parts[3:], value, path, report)


def _check_entries(name: str, statement: Statement, path: Path, report: Report) -> None:
    """Each identity, operation and resource by itself, so that each wrong one is found."""
    right = Statement(effect="allow", identities=(IOTHUB,), operations=("list",))
    for field in ("identities", "operations", "resources"):
        for index, entry in enumerate(getattr(statement, field)):
            with report.catching((*path, field, index)):
                alone = msgspec.structs.replace(right, **{field: (entry,)})
                Policy(PolicyDocument(statements={name: alone}), hub="hub.example", device="device")


def _check_part(kind: type[msgspec.Struct], parts: Sequence[str], value: Any, path: Path, report: Report) -> None:
    """One field of an entry, as a layer may give it."""
    fields = fields_of(kind)
    if parts[0] not in fields:
        report.error(path, f"the name {parts[0]!r} is not known here", suggestion(parts[0], fields))
    elif len(parts) == 1:
        check_value(value, fields[parts[0]].type, path, report)


def _strings(statement: Any, name: str) -> list[str]:
    entries = statement.get(name) if isinstance(statement, dict) else None
    return [entry if isinstance(entry, str) else "" for entry in entries] if isinstance(entries, list) else []


def _warn(what: str, given: str, known: Set[str], path: Path, report: Report) -> None:
    near = nearest(given, known)
    report.warn(
        path, what, f"did you mean {near!r}?" if near else "correct it, or remove it", code="policy-names-nothing"
    )
