"""Who may ask for what: the right that each request needs, and the token that has it."""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web

from edgeclave.simulator.credentials import SAS
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.policies import Right, policy_key, require
from edgeclave.simulator.rest import files
from edgeclave.simulator.sas import SharedAccessSignature
from edgeclave.simulator.settings import DPS_HOST, Settings

_METHODS_SUFFIX = "/methods"
_PROVISIONING = ("/enrollments", "/enrollmentGroups", "/registrations")


class RestAccess:
    """Checks tokens of policies, of modules that call methods on their own device, and of an edge device."""

    def __init__(self, hub: EdgeHub, settings: Settings) -> None:
        self._hub = hub
        self._owner_key = settings.owner_key
        self._hosts: Collection[str] = (settings.address, settings.hub_host, settings.gateway, DPS_HOST)

    def check(self, request: web.Request) -> None:
        """Raises HubError 401 or 403."""
        token = SharedAccessSignature.parse(request.headers.get("Authorization", ""))
        if not token.policy:
            self._check_identity(request, token)
            return
        token.check([policy_key(self._owner_key, token.policy)], hosts=self._hosts)
        require(token.policy, right_for(request.method, request.path))

    def _check_identity(self, request: web.Request, token: SharedAccessSignature) -> None:
        """A module may call methods of its own device, under its own name; an edge device manages its modules."""
        path = token.resource.partition("/")[2]
        parts = path.split("/")
        if len(parts) not in (2, 4) or parts[0] != "devices" or (len(parts) == 4 and parts[2] != "modules"):
            raise HubError(401, "IotHubUnauthorizedAccess", "the shared access signature names no device or module")
        name = IdentityName(parts[1], parts[3] if len(parts) == 4 else "")
        identity = self._hub.identities.find(name)
        if identity is None or not identity.enabled or identity.authentication != SAS:
            raise HubError(401, "IotHubUnauthorizedAccess", f"{name} is unknown, disabled or has no symmetric key")
        token.check(identity.keys, hosts=self._hosts, path=identity.resource(""))
        if request.headers.get("x-ms-edge-moduleId", str(name)) != str(name):
            raise HubError(401, "IotHubUnauthorizedAccess", "x-ms-edge-moduleId is not the one who signed")
        methods_of_own_device = (
            request.method == "POST"
            and request.path.startswith(f"/twins/{name.device_id}/")
            and request.path.endswith(_METHODS_SUFFIX)
        )
        modules = f"/devices/{name.device_id}/modules"
        manages_its_modules = (
            not name.module_id
            and identity.iot_edge
            and request.method in ("GET", "PUT", "DELETE")
            and (request.path == modules or request.path.startswith(f"{modules}/"))
        )
        uploads_files = (
            not name.module_id
            and request.method == "POST"
            and request.path in [path.format(device=name.device_id) for path in files.PATHS]
        )
        if not methods_of_own_device and not manages_its_modules and not uploads_files:
            may = "may only invoke methods on its own device"
            raise HubError(403, "Forbidden", f"{name} {may}; an edge device also manages its modules")


def right_for(method: str, path: str) -> Right:
    """What IoT Hub and the provisioning service ask for (developer guide, access control)."""
    if path.startswith(_PROVISIONING):
        return Right.ENROLMENT
    if path == "/devices/query" or path.startswith(("/twins/", "/messages/")) or path.endswith("/commands"):
        return Right.SERVICE_CONNECT
    if path.startswith("/configurations") or path.endswith("/applyConfigurationContent"):
        if method == "GET" or path.endswith("/testQueries"):
            return Right.REGISTRY_READ
        return Right.REGISTRY_WRITE | Right.SERVICE_CONNECT
    return Right.REGISTRY_READ if method == "GET" else Right.REGISTRY_WRITE
