"""The broker's twin: what an operator sets, checked as a whole before any of it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from edgeclave.edge.identity import ModuleIdentity
from edgeclave.edge.twins.access_policy import Policy, PolicyDocument
from edgeclave.errors import ConfigurationError


class Quotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The twin's `quotas`."""

    requests_per_second: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 1000.0
    """For each identity, on average."""
    burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 2000
    """For each identity, at once after a pause."""
    in_flight: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    """For each identity, running or waiting."""
    total_in_flight: Annotated[int, msgspec.Meta(ge=1, le=256)] = 128
    """For all, running."""
    queued: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 256
    """For all, waiting."""


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
