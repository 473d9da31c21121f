"""Many identities in one request: `POST /devices` creates, updates and deletes, each on its own."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.rest.common import hub_of, json_list, stored
from edgeclave.simulator.rest.identities import Authentication, Capabilities

MAX_ENTRIES = 100  # IoT Hub's limit for one request


class _Properties(msgspec.Struct):
    desired: dict[str, Any] | None = None


class _Entry(msgspec.Struct, rename="camel"):
    id: str
    import_mode: str
    module_id: str | None = None
    etag: str | None = msgspec.field(default=None, name="eTag")
    twin_etag: str | None = msgspec.field(default=None, name="twinETag")
    status: str | None = None
    status_reason: str | None = None
    authentication: Authentication | None = None
    capabilities: Capabilities | None = None
    tags: dict[str, Any] | None = None
    properties: _Properties | None = None


def routes() -> list[web.RouteDef]:
    return [web.post("/devices", _bulk)]


async def _bulk(request: web.Request) -> web.Response:
    """Each entry succeeds or fails on its own; the answer says which failed and why."""
    given = await json_list(request)
    if len(given) > MAX_ENTRIES:
        raise bad_request(f"at most {MAX_ENTRIES} identities in one request", where="body")
    try:
        entries = msgspec.convert(given, list[_Entry])
    except msgspec.ValidationError as error:
        raise bad_request(str(error), where="body") from error
    hub, errors = hub_of(request), []
    for entry in entries:
        try:
            with hub.store.write():
                _carry_out(hub, entry)
        except HubError as error:
            errors.append(
                {
                    "deviceId": entry.id,
                    "moduleId": entry.module_id,
                    "errorCode": error.name,
                    "errorStatus": str(error),
                }
            )
    answer = {"isSuccessful": not errors, "errors": errors, "warnings": []}
    return await stored(request, answer, status=400 if errors else 200)


def _carry_out(hub: EdgeHub, entry: _Entry) -> None:
    name = IdentityName(entry.id, entry.module_id or "")
    mode = entry.import_mode.lower()
    etag = (entry.etag or "*").strip('"') if mode.endswith("ifmatchetag") else "*"
    mode = mode.removesuffix("ifmatchetag")
    if mode == "delete":
        hub.delete_identity(name, if_match=etag)
        return
    if mode not in ("create", "update", "createorupdate", "updatetwin"):
        raise bad_request(f"the import mode {entry.import_mode[:40]!r} is not known", where="importMode")
    exists = hub.identities.find(name) is not None
    if mode != "updatetwin":
        _put(hub, name, entry, etag, update=mode == "update" or (mode == "createorupdate" and exists))
    desired = entry.properties.desired if entry.properties else None
    if entry.tags is not None or desired is not None:
        twin_etag = (entry.twin_etag or "*").strip('"') if entry.import_mode.lower().endswith("ifmatchetag") else "*"
        hub.twins.update(name, tags=entry.tags, desired=desired, if_match=twin_etag)


def _put(hub: EdgeHub, name: IdentityName, entry: _Entry, etag: str, *, update: bool) -> None:
    credentials = (entry.authentication or Authentication()).credentials()
    enabled, reason = entry.status != "disabled", entry.status_reason or ""
    iot_edge = entry.capabilities is not None and entry.capabilities.iot_edge
    if update:
        hub.identities.update(
            name, credentials, iot_edge=iot_edge, enabled=enabled, status_reason=reason, if_match=etag
        )
        return
    hub.identities.create(
        name,
        credentials,
        iot_edge=iot_edge,
        enabled=enabled,
        status_reason=reason,
    )
