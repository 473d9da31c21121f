"""Putting the content of a deployment on a device: modules made, desired properties set, all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeclave.simulator.edge_hub import EDGE_AGENT, EdgeHub
from edgeclave.simulator.hub_errors import bad_request
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.layers import WHOLE, overlay, parts_of


def check_content(content: object) -> dict[str, dict[str, Any]]:
    """Form only: modules that are objects of `properties.desired` and paths below it.

    Raises:
        HubError: 400.
    """
    if not isinstance(content, dict):
        raise bad_request("must be an object of modules", where="modulesContent")
    for module_id, entries in content.items():
        place = f"modulesContent.{module_id}"
        if not isinstance(entries, dict):
            raise bad_request("must be an object", where=place)
        for path, value in entries.items():
            if path == WHOLE and not isinstance(value, dict):
                raise bad_request("must be an object", where=f"{place}.{path}")
            if path != WHOLE:
                parts_of(path)
    return content


def apply_content(hub: EdgeHub, device_id: str, content: Mapping[str, Mapping[str, Any]]) -> None:
    """Call inside `store.write()`. Raises HubError 400 naming what is wrong, 403 for too many modules."""
    for module_id in _deployed_modules(content.get(EDGE_AGENT)):
        name = IdentityName(device_id, module_id)
        if hub.identities.find(name) is None:
            hub.identities.create(name, managed_by="IotEdge")
    for module_id, entries in content.items():
        name = IdentityName(device_id, module_id)
        if hub.identities.find(name) is None:
            raise bad_request(
                f"{module_id} is in no deployed module's list",
                where=f"modulesContent.{module_id}",
                advice="add it to the modules of $edgeAgent, or correct its name",
            )
        apply_entries(hub, name, entries)


def apply_entries(hub: EdgeHub, name: IdentityName, entries: Mapping[str, Any]) -> None:
    """`properties.desired` replaces everything; `properties.desired.a.b` replaces that part and leaves the rest."""
    if not entries:
        return
    desired = entries[WHOLE] if WHOLE in entries else hub.twins.get(name).desired
    for path, value in entries.items():
        if path != WHOLE:
            desired = overlay(desired, parts_of(path), value)
    hub.twins.update(name, desired=desired, replace=True)


def _deployed_modules(agent: object) -> list[str]:
    desired = agent.get(WHOLE) if isinstance(agent, Mapping) else None
    if not isinstance(desired, Mapping):
        raise bad_request(f"must have {WHOLE!r}", where=f"modulesContent.{EDGE_AGENT}")
    modules = desired.get("modules", {})
    if not isinstance(modules, Mapping):
        raise bad_request("must be an object of modules", where=f"modulesContent.{EDGE_AGENT}.{WHOLE}.modules")
    return list(modules)
