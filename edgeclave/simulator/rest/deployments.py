"""Deployment manifests: `applyConfigurationContent` for one device, all of it or nothing."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from edgeclave.simulator.edge_hub import EDGE_AGENT, EDGE_HUB, EdgeHub
from edgeclave.simulator.hub_errors import bad_request
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.rest.common import hub_of, json_body, stored, target_of
from edgeclave.simulator.twin_document import Section

_WHOLE = "properties.desired"


def routes() -> list[web.RouteDef]:
    return [web.post("/devices/{device}/applyConfigurationContent", _apply)]


async def _apply(request: web.Request) -> web.Response:
    hub, device = hub_of(request), target_of(request)
    hub.identities.get(device)
    content = (await json_body(request)).get("modulesContent")
    if not isinstance(content, dict):
        raise bad_request("must be an object of modules", where="modulesContent")
    missing = [name for name in (EDGE_AGENT, EDGE_HUB) if name not in content]
    if missing:
        raise bad_request(f"{' and '.join(missing)} must be there", where="modulesContent")
    with hub.store.write():
        _apply_content(hub, device.device_id, content)
    return await stored(request, status=204)


def _apply_content(hub: EdgeHub, device_id: str, content: dict[str, Any]) -> None:
    for module_id in _deployed_modules(content[EDGE_AGENT]):
        name = IdentityName(device_id, module_id)
        if hub.identities.find(name) is None:
            hub.identities.create(name, managed_by="IotEdge")
    for module_id, properties in content.items():
        name = IdentityName(device_id, module_id)
        if hub.identities.find(name) is None:
            raise bad_request(
                f"{module_id} is in no deployed module's list",
                where=f"modulesContent.{module_id}",
                advice="add it to the modules of $edgeAgent, or correct its name",
            )
        _apply_module(hub, name, properties)


def _deployed_modules(agent: object) -> list[str]:
    desired = agent.get(_WHOLE) if isinstance(agent, dict) else None
    if not isinstance(desired, dict):
        raise bad_request(f"must have {_WHOLE!r}", where=f"modulesContent.{EDGE_AGENT}")
    modules = desired.get("modules", {})
    if not isinstance(modules, dict):
        raise bad_request("must be an object of modules", where=f"modulesContent.{EDGE_AGENT}.{_WHOLE}.modules")
    return list(modules)


def _apply_module(hub: EdgeHub, name: IdentityName, properties: object) -> None:
    """`properties.desired` replaces everything; `properties.desired.a.b` sets that part and leaves the rest."""
    place = f"modulesContent.{name.module_id}"
    if not isinstance(properties, dict):
        raise bad_request("must be an object", where=place)
    for path, value in properties.items():
        if path == _WHOLE:
            hub.twins.update(name, desired=value, replace=True)
        elif path.startswith(_WHOLE + "."):
            hub.twins.update(name, desired=_nested(path.removeprefix(_WHOLE + ".").split("."), value))
        else:
            raise bad_request(f"{path[:80]!r} is not {_WHOLE} or a path below it", where=place)


def _nested(path: list[str], value: object) -> Section:
    return {path[0]: _nested(path[1:], value) if len(path) > 1 else value}
