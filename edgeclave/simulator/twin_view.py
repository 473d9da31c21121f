"""A twin as the service side sees it: identity, connection, tags and both sections in one document."""

from __future__ import annotations

from typing import Any

from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.identities import HubIdentity


def twin_view(hub: EdgeHub, identity: HubIdentity) -> dict[str, Any]:
    """IoT Hub's service REST document, without the status of configurations."""
    twin = hub.twins.get(identity.name)
    shown: dict[str, Any] = {
        "deviceId": identity.name.device_id,
        "etag": twin.etag,
        "deviceEtag": identity.etag,
        "version": twin.version,
        "status": "enabled" if identity.enabled else "disabled",
        "statusReason": identity.status_reason or None,
        "connectionState": connection_state(hub, identity),
        "cloudToDeviceMessageCount": hub.inputs.count(identity.name),
        "authenticationType": identity.authentication,
        "x509Thumbprint": {
            "primaryThumbprint": identity.primary_thumbprint or None,
            "secondaryThumbprint": identity.secondary_thumbprint or None,
        },
        "tags": twin.tags,
        "properties": twin.for_service(),
    }
    if identity.name.module_id:
        shown["moduleId"] = identity.name.module_id
    else:
        shown["capabilities"] = {"iotEdge": identity.iot_edge}
    return shown


def connection_state(hub: EdgeHub, identity: HubIdentity) -> str:
    connected = hub.connected(identity.name) and not hub.cut_off(identity.name)
    return "Connected" if connected else "Disconnected"
