"""What $edgeAgent's desired properties ask for, module by module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from edgeclave.deployment import create_options
from edgeclave.deployment.document import convert, expect_object, require
from edgeclave.deployment.manifest import ModuleSettings, RestartPolicy


class Registry(msgspec.Struct, frozen=True):
    """One entry of the runtime's `registryCredentials`."""

    address: str
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Registry({self.address!r})"


@dataclass(frozen=True)
class ModuleSpecification:
    """One module.

    Args:
        create_options: Docker's, checked.
        registry: how the image is pulled; not part of what makes a module another one.
        local_files: files of this machine that its twin names.
    """

    module_id: str
    image: str
    wanted: bool
    restart_policy: RestartPolicy
    version: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    startup_order: int = 0
    create_options: Mapping[str, Any] = field(default_factory=dict)
    image_pull_policy: Literal["on-create", "never"] = "on-create"
    registry: Registry | None = field(default=None, compare=False)
    local_files: tuple[str, ...] = ()


def read_specifications(desired: Mapping[str, Any]) -> list[ModuleSpecification]:
    """In the order in which they start.

    Raises:
        ConfigurationError: `bad-deployment`, `bad-create-options`.
    """
    place = "$edgeAgent.modules"
    modules = expect_object(desired.get("modules", {}), place)
    registries = _read_registries(desired)
    specifications = [_read(name, value, registries, f"{place}.{name}") for name, value in modules.items()]
    return sorted(specifications, key=lambda specification: specification.startup_order)


def _read(name: str, value: object, registries: list[Registry], place: str) -> ModuleSpecification:
    settings = convert(value, ModuleSettings, place)
    image = str(require(settings.settings, "image", f"{place}.settings"))
    return ModuleSpecification(
        name,
        image,
        settings.status == "running",
        settings.restart_policy,
        settings.version or "",
        {variable: _text(entry.get("value", "")) for variable, entry in settings.env.items()},
        settings.startup_order,
        create_options.read(settings.settings),
        settings.image_pull_policy,
        next((each for each in registries if image.startswith(f"{each.address}/")), None),
    )


def _read_registries(desired: Mapping[str, Any]) -> list[Registry]:
    place = "$edgeAgent.runtime"
    runtime = expect_object(desired.get("runtime") or {}, place)
    settings = expect_object(runtime.get("settings") or {}, f"{place}.settings")
    entries = expect_object(settings.get("registryCredentials") or {}, f"{place}.settings.registryCredentials")
    return [convert(value, Registry, f"{place}.settings.registryCredentials.{name}") for name, value in entries.items()]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
