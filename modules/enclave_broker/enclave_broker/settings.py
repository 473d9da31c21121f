"""The broker's twin: what an operator sets, checked as a whole before any of it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from edgeclave.edge.identity import ModuleIdentity
from edgeclave.errors import ConfigurationError
from enclave_broker.policy import Policy, PolicyDocument
from enclave_broker.quotas import Quotas


class _Desired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    policy: PolicyDocument = PolicyDocument()
    quotas: Quotas = Quotas()


@dataclass(frozen=True)
class Settings:
    """A twin that is right as a whole."""

    policy: Policy
    quotas: Quotas


def read_settings(desired: dict[str, Any], broker: ModuleIdentity) -> Settings:
    """Read the desired properties (without `$` members) for the broker of this device.

    Raises:
        ConfigurationError: malformed-twin (unknown or wrong field), or what Policy raises.
    """
    try:
        twin = msgspec.convert(desired, _Desired)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            "malformed-twin",
            str(error),
            where="desired properties of enclave_broker",
            advice="correct that field; until then the last good policy stays in force",
        ) from error
    return Settings(Policy(twin.policy, hub=broker.hub, device=broker.device), twin.quotas)
