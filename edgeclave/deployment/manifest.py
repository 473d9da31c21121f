"""Checks what a deployment says the way its readers (edgeAgent, edgeHub, IoT Hub) would, but before they see it.

A whole deployment has `properties.desired` of $edgeAgent and $edgeHub; a layered one has paths below them:
`properties.desired.modules.NAME`, `properties.desired.routes.NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from edgeclave.deployment import create_options, image_names
from edgeclave.deployment.container_options import check_create_options, host_ports
from edgeclave.deployment.document import nearest, suggestion
from edgeclave.deployment.findings import Report
from edgeclave.deployment.structure import check_object, check_value, kind_of
from edgeclave.deployment.twin_limits import Path

EDGE_AGENT, EDGE_HUB = "$edgeAgent", "$edgeHub"
WHOLE = "properties.desired"
MODULES = f"{WHOLE}.modules"
_MODULE_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_VARIABLE_NAME = re.compile(r"[^+#$\s.]+")
_SCHEMA_VERSION = re.compile(r"1\.[0-9]+")

RestartPolicy = Literal["always", "never", "on-failure", "on-unhealthy"]
_Status = Literal["running", "stopped"]
_PullPolicy = Literal["on-create", "never"]
_StartupOrder = Annotated[int, msgspec.Meta(ge=0, le=4294967295)]


class _Credentials(msgspec.Struct, forbid_unknown_fields=True):
    address: Annotated[str, msgspec.Meta(pattern=r"^\S+$")]
    username: str
    password: str


class _RuntimeSettings(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    min_docker_version: str = ""
    logging_options: str = ""
    registry_credentials: dict[str, Any] = {}


class _Runtime(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["docker"]
    settings: dict[str, Any]


class _Agent(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    schema_version: str
    runtime: dict[str, Any]
    system_modules: dict[str, Any]
    modules: dict[str, Any] = {}


class _SystemModules(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    edge_agent: dict[str, Any]
    edge_hub: dict[str, Any]


class _SystemAgent(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    type: Literal["docker"]
    settings: dict[str, Any]
    env: dict[str, Any] = {}
    image_pull_policy: _PullPolicy = "on-create"


class _SystemHub(_SystemAgent, forbid_unknown_fields=True, rename="camel", kw_only=True):
    status: _Status
    restart_policy: RestartPolicy
    startup_order: _StartupOrder = 0


class ModuleSettings(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """One entry of `modules`."""

    type: Literal["docker"]
    status: _Status
    restart_policy: RestartPolicy
    settings: dict[str, Any]
    version: str | None = None
    env: dict[str, Any] = {}
    image_pull_policy: _PullPolicy = "on-create"
    startup_order: _StartupOrder = 4294967295  # without one a module starts last


class _Environment(msgspec.Struct, forbid_unknown_fields=True):
    value: str | int | float | bool


def modules_of(section: Mapping[str, Any]) -> dict[Path, Any]:
    """Each module that a $edgeAgent section gives, by its place in the section; of a whole deployment or a layer."""
    whole = section.get(WHOLE)
    listed = whole.get("modules") if isinstance(whole, dict) else None
    found: dict[Path, Any] = {}
    if isinstance(listed, dict):
        found = {(WHOLE, "modules", name): module for name, module in listed.items()}
    layered: dict[Path, Any] = {(key,): module for key, module in section.items() if key.startswith(f"{MODULES}.")}
    return {**found, **layered}


def _system_modules(section: Mapping[str, Any]) -> dict[Path, Any]:
    whole = section.get(WHOLE)
    listed = whole.get("systemModules") if isinstance(whole, dict) else None
    found: dict[Path, Any] = {}
    if isinstance(listed, dict):
        found = {(WHOLE, "systemModules", name): module for name, module in listed.items()}
    return found


def name_of(place: Path) -> str:
    """The name of a module or route from its place."""
    return str(place[-1]).rpartition(".")[2] if len(place) == 1 else str(place[-1])


def check_agent(section: dict[str, Any], path: Path, report: Report, *, layered: bool) -> None:
    """The section of $edgeAgent."""
    for key, value in section.items():
        if key == WHOLE:
            _check_agent_properties(value, (*path, key), report)
        elif not layered or not key.startswith(f"{MODULES}."):
            report.error((*path, key), f"the name {key!r} is not known here", f"write {MODULES}.NAME, or {WHOLE}")
    for place, module in modules_of(section).items():
        _check_module(name_of(place), module, (*path, *place), report)
    _check_ports({**_system_modules(section), **modules_of(section)}, path, report)


def _check_agent_properties(desired: object, path: Path, report: Report) -> None:
    check_object(desired, _Agent, path, report)
    if not isinstance(desired, dict):
        return
    check_version(desired.get("schemaVersion"), path, report)
    if isinstance(runtime := desired.get("runtime"), dict):
        _check_runtime(runtime, (*path, "runtime"), report)
    if isinstance(system := desired.get("systemModules"), dict):
        check_object(system, _SystemModules, (*path, "systemModules"), report)
        for name, kind in (("edgeAgent", _SystemAgent), ("edgeHub", _SystemHub)):
            if isinstance(module := system.get(name), dict):
                check_object(module, kind, (*path, "systemModules", name), report)
                _check_inside(module, (*path, "systemModules", name), report)


def _check_runtime(runtime: dict[str, Any], path: Path, report: Report) -> None:
    check_object(runtime, _Runtime, path, report)
    settings = runtime.get("settings")
    if not isinstance(settings, dict):
        return
    check_object(settings, _RuntimeSettings, (*path, "settings"), report)
    credentials = settings.get("registryCredentials")
    for name, entry in credentials.items() if isinstance(credentials, dict) else ():
        check_object(entry, _Credentials, (*path, "settings", "registryCredentials", name), report)


def _check_module(name: str, module: object, path: Path, report: Report) -> None:
    if not _MODULE_NAME.fullmatch(name):
        report.error(path, f"{name!r} is not a module's name", "use letters, digits, _ and -")
    check_object(module, ModuleSettings, path, report)
    if isinstance(module, dict):
        _check_inside(module, path, report)


def _check_inside(module: dict[str, Any], path: Path, report: Report) -> None:
    env = module.get("env")
    for variable, entry in env.items() if isinstance(env, dict) else ():
        if not _VARIABLE_NAME.fullmatch(variable):
            what = f"{variable!r} is not a name of an environment variable in a twin"
            report.error((*path, "env", variable), what, "leave out +, #, $, dots and spaces")
        if isinstance(entry, dict):
            check_object(entry, _Environment, (*path, "env", variable), report)
        else:
            what = f"must be an object, not {kind_of(entry)}"
            report.error((*path, "env", variable), what, f'write "{variable}": {{"value": ...}}')
    settings = module.get("settings")
    if isinstance(settings, dict):
        _check_settings(settings, (*path, "settings"), report)


def _check_settings(settings: dict[str, Any], path: Path, report: Report) -> None:
    for key in settings:
        if key != "image" and key not in create_options.KEYS:
            advice = suggestion(key, ["image", *create_options.KEYS[:2]])
            report.error((*path, key), f"the name {key!r} is not known here", advice)
    if "image" not in settings:
        if nearest("image", settings) is None:  # otherwise it was told of as unknown
            report.error(path, "'image' is missing", "add 'image'")
    elif check_value(settings["image"], str, (*path, "image"), report):
        _check_image(settings["image"], (*path, "image"), report)
    with report.catching((*path, create_options.NAME)):
        check_create_options(create_options.read(settings), (*path, create_options.NAME), report)
        create_options.minify(settings)


def _check_image(image: str, path: Path, report: Report) -> None:
    if problem := image_names.problem(image):
        report.error(path, problem, "write registry/repository:tag", code="bad-image-name")
    elif image_names.split(image)[1:] == ("", ""):
        report.warn(path, f"{image!r} has no tag, which means :latest", "name a version", code="no-image-tag")


def _check_ports(modules: Mapping[Path, Any], path: Path, report: Report) -> None:
    taken: dict[tuple[str, str], tuple[str, str]] = {}  # (port, protocol) -> (address, module)
    for place, module in modules.items():
        settings = module.get("settings") if isinstance(module, dict) else None
        value = settings.get(create_options.NAME) if isinstance(settings, dict) else None
        for (address, port, protocol), inside in host_ports(value) if isinstance(value, dict) else ():
            other = taken.setdefault((port, protocol), (address, name_of(place)))
            if other[1] != name_of(place) and (other[0] == address or "0.0.0.0" in (other[0], address)):  # noqa: S104
                report.error(
                    (*path, *place, "settings", create_options.NAME, *inside),
                    f"host port {port} is taken by {other[1]} already",
                    "choose another HostPort",
                    code="port-taken",
                )


def check_version(version: object, path: Path, report: Report) -> None:
    if isinstance(version, str) and not _SCHEMA_VERSION.fullmatch(version):
        report.error((*path, "schemaVersion"), f"schemaVersion {version!r} is not known", "use 1.1 or 1.2")


def expect_object(value: object, path: Path, report: Report) -> dict[str, Any]:
    """The object, or an empty one after a finding."""
    if isinstance(value, dict):
        return value
    report.error(path, f"must be an object, not {kind_of(value)}")
    return {}


def minified(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section of $edgeAgent with createOptions in the form of a manifest. The section has been checked."""
    made = {key: value if key == WHOLE else _minified(value) for key, value in section.items()}
    if WHOLE in made:
        desired = dict(made[WHOLE])
        for group in ("systemModules", "modules"):
            if group in desired:
                desired[group] = {name: _minified(module) for name, module in desired[group].items()}
        made[WHOLE] = desired
    return made


def _minified(module: dict[str, Any]) -> dict[str, Any]:
    return {**module, "settings": create_options.minify(module["settings"])}
