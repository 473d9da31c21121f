"""Connection strings for the service SDKs, and of the edge device."""

from __future__ import annotations

from typing import Literal

from edgeclave.simulator.policies import OWNER, PROVISIONING_OWNER, policy_key
from edgeclave.simulator.settings import Settings

Kind = Literal["service", "eventhub", "provisioning"]


def device_connection_string(settings: Settings, key: str) -> str:
    """The edge device's own, for tools that set themselves up as it. A secret.

    It names the hub as modules do, so its users need the simulator's proxy.
    """
    return f"HostName={settings.hub_host};DeviceId={settings.device_id};SharedAccessKey={key}"


def connection_string(settings: Settings, kind: Kind, policy: str = "") -> str:
    """`service` for azure-iot-hub, `eventhub` for azure-eventhub, `provisioning` for the enrolments. A secret.

    Args:
        policy: a shared access policy other than the owner's.

    Raises:
        HubError: there is no such policy.
    """
    name = policy or (PROVISIONING_OWNER if kind == "provisioning" else OWNER)
    access = f"SharedAccessKeyName={name};SharedAccessKey={policy_key(settings.owner_key, name)}"
    if kind == "eventhub":
        return f"Endpoint=sb://{settings.address}/;{access};EntityPath={settings.hub_name}"
    return f"HostName={settings.address}:{settings.ports.https};{access}"
