"""Connection strings for the service SDKs."""

from __future__ import annotations

from typing import Literal

from edgeclave.simulator.settings import POLICY, Settings

Kind = Literal["service", "eventhub"]


def connection_string(settings: Settings, kind: Kind) -> str:
    """`service` for azure-iot-hub, `eventhub` for azure-eventhub. Holds the owner key: a secret."""
    access = f"SharedAccessKeyName={POLICY};SharedAccessKey={settings.owner_key}"
    if kind == "service":
        return f"HostName={settings.address}:{settings.ports.https};{access}"
    return f"Endpoint=sb://{settings.address}/;{access};EntityPath={settings.hub_name}"
