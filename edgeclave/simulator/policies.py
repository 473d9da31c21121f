"""Shared access policies of the simulated hub: which rights a key has, as every new IoT Hub comes with them.

The owner's key is made at random with the state. The other keys are derived from it (HMAC-SHA256 of the policy's name),
so that none of them says anything about another and nothing more has to be kept.
"""

from __future__ import annotations

import base64
from enum import Flag, auto

from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.sas import sign

OWNER = "iothubowner"
PROVISIONING_OWNER = "provisioningserviceowner"


class Right(Flag):
    """IoT Hub developer guide, access control; the last one is that of the provisioning service."""

    REGISTRY_READ = auto()
    REGISTRY_WRITE = auto()
    SERVICE_CONNECT = auto()
    DEVICE_CONNECT = auto()
    ENROLMENT = auto()


POLICIES: dict[str, Right] = {
    OWNER: Right.REGISTRY_READ | Right.REGISTRY_WRITE | Right.SERVICE_CONNECT | Right.DEVICE_CONNECT,
    "service": Right.SERVICE_CONNECT,
    "device": Right.DEVICE_CONNECT,
    "registryRead": Right.REGISTRY_READ,
    "registryReadWrite": Right.REGISTRY_READ | Right.REGISTRY_WRITE,
    PROVISIONING_OWNER: Right.ENROLMENT,
}


def policy_key(owner_key: str, policy: str) -> str:
    """The base64 key of a policy.

    Raises:
        HubError: 401 for a policy that is not there.
    """
    if policy not in POLICIES:
        raise HubError(
            401,
            "IotHubUnauthorizedAccess",
            f"there is no policy {policy[:80]!r}",
            advice=f"there are {', '.join(POLICIES)}",
        )
    if policy == OWNER:
        return owner_key
    return base64.b64encode(sign(owner_key, policy.encode())).decode()


def require(policy: str, right: Right) -> None:
    """Raises HubError 401, as IoT Hub, when the policy lacks the right."""
    if right not in POLICIES[policy]:
        missing = (right & ~POLICIES[policy]).name
        raise HubError(
            401,
            "IotHubUnauthorizedAccess",
            f"the policy {policy!r} does not have the right {missing}",
            advice=f"use {OWNER}, or a policy with that right",
        )
