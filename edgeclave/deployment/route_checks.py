"""The section of $edgeHub: routes that do not parse, and routes that parse and carry nothing.

edgeHub takes a route from or into a module that is not there, since another layer may bring it. It is usually a typing
mistake, so that is a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from edgeclave.deployment.document import nearest, suggestion
from edgeclave.deployment.findings import Report
from edgeclave.deployment.known_modules import ENDS, Ends
from edgeclave.deployment.manifest import WHOLE, check_version, name_of
from edgeclave.deployment.routes import (
    DEFAULT_TIME_TO_LIVE_SECONDS,
    LOWEST_PRIORITY,
    MAX_TIME_TO_LIVE_SECONDS,
    Input,
    Route,
    check_name,
    default_time_to_live,
    parse_entry,
)
from edgeclave.deployment.structure import check_object
from edgeclave.deployment.twin_limits import Path

ROUTES = f"{WHOLE}.routes"
_HEADS = (
    "messages",
    "twinChangeNotifications",
    "deviceLifecycleEvents",
    "moduleLifecycleEvents",
    "deviceJobLifecycleEvents",
)
_NOTHING = "route-carries-nothing"
_UNKNOWN = "route-of-unknown-module"


class _Hub(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    schema_version: str
    routes: dict[str, Any]
    store_and_forward_configuration: dict[str, Any] = {}
    mqtt_broker: dict[str, Any] = {}


class _StoreAndForward(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    time_to_live_secs: int


class _RouteFields(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    route: str
    priority: Annotated[int, msgspec.Meta(ge=0, le=LOWEST_PRIORITY)] = LOWEST_PRIORITY
    time_to_live_secs: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_TO_LIVE_SECONDS)] = 0


def check_hub(
    section: dict[str, Any], path: Path, report: Report, *, modules: Mapping[str, str] | None, layered: bool
) -> None:
    """Args:
    modules: the kind of each module that is deployed; None where that is not known, as in a layer.
    """
    for key, value in section.items():
        if key == WHOLE:
            _check_properties(value, (*path, key), report)
        elif not layered or not key.startswith(f"{ROUTES}."):
            report.error((*path, key), f"the name {key!r} is not known here", f"write {ROUTES}.NAME, or {WHOLE}")
    whole = section.get(WHOLE)
    default = DEFAULT_TIME_TO_LIVE_SECONDS
    with report.catching((*path, WHOLE, "storeAndForwardConfiguration")):
        default = default_time_to_live(whole if isinstance(whole, dict) else {}, "")
    for place, value in _routes_of(section).items():
        if isinstance(value, dict) and not check_object(value, _RouteFields, (*path, *place), report):
            continue
        with report.catching((*path, *place)):
            check_name(name_of(place), "")
        text: Path = (*path, *place, "route") if isinstance(value, dict) else (*path, *place)
        with report.catching(text):
            route = parse_entry("this", value, default, "")
            _check_source(route, text, report, modules)
            _check_sink(route, text, report, modules)


def _routes_of(section: Mapping[str, Any]) -> dict[Path, Any]:
    whole = section.get(WHOLE)
    listed = whole.get("routes") if isinstance(whole, dict) else None
    found: dict[Path, Any] = {}
    if isinstance(listed, dict):
        found = {(WHOLE, "routes", name): route for name, route in listed.items()}
    return {**found, **{(key,): value for key, value in section.items() if key.startswith(f"{ROUTES}.")}}


def _check_properties(desired: object, path: Path, report: Report) -> None:
    check_object(desired, _Hub, path, report)
    if not isinstance(desired, dict):
        return
    check_version(desired.get("schemaVersion"), path, report)
    if isinstance(keeping := desired.get("storeAndForwardConfiguration"), dict):
        check_object(keeping, _StoreAndForward, (*path, "storeAndForwardConfiguration"), report)


def _check_source(route: Route, path: Path, report: Report, modules: Mapping[str, str] | None) -> None:
    parts = route.source_text.rstrip("*").rstrip("/").split("/")[1:]
    head = parts[0] if parts else ""
    if head and "*" not in head and head.lower() not in map(str.lower, _HEADS):
        near = nearest(head, _HEADS)
        advice = f"did you mean /{near}?" if near else "write FROM /messages/modules/<module>/outputs/<output>"
        report.error(path, f"no message comes from /{head}", advice, code=_NOTHING)
        return
    if head.lower() != "messages" or len(parts) < 2:
        return
    for part, known in ((parts[1], ("modules", "events")), (parts[3] if len(parts) > 3 else "", ("outputs",))):
        if part and part != "*" and part.lower() not in known:
            report.error(path, f"no message comes from {route.source_text}", suggestion(part, known), code=_NOTHING)
            return
    module = parts[2] if len(parts) > 2 else "*"
    if "*" in module or modules is None:
        return
    known_module = next((name for name in modules if name.lower() == module.lower()), None)
    if known_module is None:
        what = f"the route begins at {module!r}, which is no module of this deployment"
        report.warn(path, what, _meant(module, modules), code=_UNKNOWN)
        return
    outputs = ENDS.get(modules[known_module], Ends(None, None)).outputs
    source = f"/messages/modules/{known_module}/outputs/"
    if outputs is not None and not any(route.source.match(source + output) for output in outputs):
        what = f"{known_module} has no output that {route.source_text} matches"
        report.error(path, what, f"its outputs: {', '.join(sorted(outputs)) or 'none'}", code=_NOTHING)


def _check_sink(route: Route, path: Path, report: Report, modules: Mapping[str, str] | None) -> None:
    if not isinstance(route.sink, Input) or modules is None:
        return
    module, given = route.sink.module_id, route.sink.input_name
    if module not in modules:
        what = f"the route leads into {module!r}, which is no module of this deployment"
        report.warn(path, what, _meant(module, modules), code=_UNKNOWN)
        return
    inputs = ENDS.get(modules[module], Ends(None, None)).inputs
    if inputs is not None and given not in inputs:
        what = f"{module} has no input {given!r}"
        report.error(path, what, f"its inputs: {', '.join(sorted(inputs)) or 'none'}", code=_NOTHING)


def _meant(module: str, modules: Mapping[str, str]) -> str:
    near = nearest(module, modules)
    return f"did you mean {near!r}?" if near else "add the module, or remove the route"
