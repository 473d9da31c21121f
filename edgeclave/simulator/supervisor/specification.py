"""What $edgeAgent's desired properties ask for, module by module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeclave.deployment.document import convert, expect_object, require
from edgeclave.deployment.manifest import ModuleSettings, RestartPolicy


@dataclass(frozen=True)
class ModuleSpecification:
    """One module. `folder` is None when its image is not built from this solution; then it cannot be started here."""

    module_id: str
    image: str
    folder: Path | None
    wanted: bool
    restart_policy: RestartPolicy
    version: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    startup_order: int = 0

    @property
    def runnable(self) -> bool:
        return self.folder is not None


def read_specifications(desired: Mapping[str, Any], folders: Mapping[str, Path]) -> list[ModuleSpecification]:
    """In the order in which they start.

    Raises:
        ConfigurationError: `bad-deployment`.
    """
    place = "$edgeAgent.modules"
    modules = expect_object(desired.get("modules", {}), place)
    specifications = [_read(name, value, folders, f"{place}.{name}") for name, value in modules.items()]
    return sorted(specifications, key=lambda specification: specification.startup_order)


def _read(name: str, value: object, folders: Mapping[str, Path], place: str) -> ModuleSpecification:
    settings = convert(value, ModuleSettings, place)
    image = str(require(settings.settings, "image", f"{place}.settings"))
    return ModuleSpecification(
        name,
        image,
        folders.get(image),
        settings.status == "running",
        settings.restart_policy,
        settings.version or "",
        {variable: _text(entry.get("value", "")) for variable, entry in settings.env.items()},
        settings.startup_order,
    )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
