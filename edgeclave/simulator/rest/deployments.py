"""Deployment manifests: `applyConfigurationContent` for one device, all of it or nothing."""

from __future__ import annotations

from aiohttp import web

from edgeclave.simulator.deploy import apply_content, check_content
from edgeclave.simulator.edge_hub import EDGE_AGENT, EDGE_HUB
from edgeclave.simulator.hub_errors import bad_request
from edgeclave.simulator.rest.common import hub_of, json_body, stored, target_of


def routes() -> list[web.RouteDef]:
    return [web.post("/devices/{device}/applyConfigurationContent", _apply)]


async def _apply(request: web.Request) -> web.Response:
    hub, device = hub_of(request), target_of(request)
    if not hub.identities.get(device).iot_edge:
        raise bad_request(f"{device} is no IoT Edge device", advice="create it with the capability iotEdge")
    content = check_content((await json_body(request)).get("modulesContent"))
    missing = [name for name in (EDGE_AGENT, EDGE_HUB) if name not in content]
    if missing:
        raise bad_request(f"{' and '.join(missing)} must be there", where="modulesContent")
    with hub.store.write():
        apply_content(hub, device.device_id, content)
    return await stored(request, status=204)
