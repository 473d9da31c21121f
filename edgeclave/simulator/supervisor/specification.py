"""What $edgeAgent's desired properties ask for, module by module.

A debug image (`${MODULES.x.debug}`) whose createOptions publish debugpy's port means that here, too, the module runs under
debugpy. It listens on 127.0.0.1 at the published port, so that an editor attaches as it would to the container.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeclave.simulator.deployment.create_options import KEYS
from edgeclave.simulator.deployment.document import convert, expect_object, require
from edgeclave.simulator.deployment.manifest import ModuleSettings, RestartPolicy

DEBUG_PLATFORM = ".debug"


@dataclass(frozen=True)
class ModuleSpecification:
    """One module. `folder` is None when its image is not built from this solution; then it cannot be started here.

    `debug_port` is where debugpy listens on 127.0.0.1, None when it does not run.
    """

    module_id: str
    image: str
    folder: Path | None
    wanted: bool
    restart_policy: RestartPolicy
    version: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    startup_order: int = 0
    debug_port: int | None = None

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
        _debug_port(settings.settings) if image.endswith(DEBUG_PLATFORM) else None,
    )


def _debug_port(settings: Mapping[str, Any]) -> int | None:
    """The port of this machine that a module's debugger is published at."""
    try:
        options = json.loads("".join(str(settings.get(key, "")) for key in KEYS) or "{}")
    except ValueError:  # the service checks them only in part; here nothing else of them is used
        return None
    match options:
        case {"HostConfig": {"PortBindings": {"5678/tcp": [{"HostPort": str(port)}, *_]}}} if port.isdecimal():
            return int(port)
    return None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
