"""Checks a deployment manifest the way its readers (edgeAgent, edgeHub, IoT Hub) would, but before they see it."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from edgeclave.deployment import create_options, twin_limits
from edgeclave.deployment.document import bad, convert, expect_object, require, suggestion
from edgeclave.deployment.routes import Input, parse_routes
from edgeclave.deployment.twin_limits import MAX_PROPERTIES_BYTES, faults, size_bytes

EDGE_AGENT, EDGE_HUB = "$edgeAgent", "$edgeHub"
WHOLE = "properties.desired"
MODULES_CONTENT = "modulesContent"
_MODULE_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SCHEMA_VERSION = re.compile(r"1\.[0-9]+")

RestartPolicy = Literal["always", "never", "on-failure", "on-unhealthy"]


class _Agent(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    schema_version: str
    runtime: dict[str, Any]
    system_modules: dict[str, Any]
    modules: dict[str, Any] = {}


class _SystemModules(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    edge_agent: dict[str, Any]
    edge_hub: dict[str, Any]


class _Hub(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    schema_version: str
    routes: dict[str, Any]
    store_and_forward_configuration: dict[str, Any] = {}
    mqtt_broker: dict[str, Any] = {}


class ModuleSettings(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """One entry of `modules`."""

    type: Literal["docker"]
    status: Literal["running", "stopped"]
    restart_policy: RestartPolicy
    settings: dict[str, Any]
    version: str | None = None
    env: dict[str, dict[str, Any]] = {}
    image_pull_policy: Literal["on-create", "never"] = "on-create"
    startup_order: int = 4294967295  # without one a module starts last


def check_content(content: object) -> dict[str, Any]:
    """Returns `modulesContent` with createOptions minified.

    Raises:
        ConfigurationError: `bad-deployment`, `bad-create-options`, `bad-route`, `bad-condition`, naming the place.
    """
    modules = dict(expect_object(content, MODULES_CONTENT))
    agent = _desired(modules, EDGE_AGENT)
    hub = _desired(modules, EDGE_HUB)
    place = f"{MODULES_CONTENT}.{EDGE_AGENT}.{WHOLE}"
    checked = _check_agent(agent, place)
    modules[EDGE_AGENT] = {**modules[EDGE_AGENT], WHOLE: checked}
    hub_place = f"{MODULES_CONTENT}.{EDGE_HUB}.{WHOLE}"
    _check_version(convert(hub, _Hub, hub_place).schema_version, hub_place)
    parse_routes(hub, where=hub_place)
    deployed = list(checked["modules"])
    for name, properties in modules.items():
        if name not in (EDGE_AGENT, EDGE_HUB, *deployed):
            advice = suggestion(name, [EDGE_AGENT, EDGE_HUB, *deployed])
            raise bad(f"{name!r} is not a module of this deployment", f"{MODULES_CONTENT}.{name}", advice=advice)
        _check_twin(properties, f"{MODULES_CONTENT}.{name}")
    return modules


def unknown_route_targets(content: dict[str, Any]) -> list[str]:
    """One sentence for each route into a module that is not deployed: legal, and usually a typing mistake."""
    deployed = content[EDGE_AGENT][WHOLE]["modules"]
    return [
        f"route {route.name!r} leads into {route.sink.module_id!r}, which is no module of this deployment"
        for route in parse_routes(content[EDGE_HUB][WHOLE])
        if isinstance(route.sink, Input) and route.sink.module_id not in deployed
    ]


def _desired(modules: dict[str, Any], name: str) -> dict[str, Any]:
    place = f"{MODULES_CONTENT}.{name}"
    section = expect_object(require(modules, name, MODULES_CONTENT), place)
    return expect_object(require(section, WHOLE, place), f"{place}.{WHOLE}")


def _check_agent(agent: dict[str, Any], place: str) -> dict[str, Any]:
    parsed = convert(agent, _Agent, place)
    _check_version(parsed.schema_version, place)
    convert(parsed.system_modules, _SystemModules, f"{place}.systemModules")
    system = {
        name: _check_settings(expect_object(module, f"{place}.systemModules.{name}"), f"{place}.systemModules.{name}")
        for name, module in parsed.system_modules.items()
    }
    modules = {name: _check_module(name, module, f"{place}.modules.{name}") for name, module in parsed.modules.items()}
    return {**agent, "systemModules": system, "modules": modules}


def _check_module(name: str, value: object, place: str) -> dict[str, Any]:
    if not _MODULE_NAME.fullmatch(name):
        raise bad(f"{name!r} is not a module's name", place, advice="use letters, digits, _ and -")
    module = convert(expect_object(value, place), ModuleSettings, place)
    for variable, entry in module.env.items():
        if set(entry) != {"value"} or isinstance(entry["value"], dict | list):
            raise bad('an environment variable is {"value": text}', f"{place}.env.{variable}")
    return _check_settings(expect_object(value, place), place)


def _check_settings(module: dict[str, Any], place: str) -> dict[str, Any]:
    place = f"{place}.settings"
    settings = expect_object(require(module, "settings", place.removesuffix(".settings")), place)
    image = require(settings, "image", place)
    if not isinstance(image, str) or not image.strip():
        raise bad("must be an image's name", f"{place}.image")
    for key in settings:
        if key != "image" and key not in create_options.KEYS:
            raise bad(f"the name {key!r} is not known here", place, advice=suggestion(key, ["image", "createOptions"]))
    return {**module, "settings": create_options.minify(settings, place)}


def _check_twin(properties: object, place: str) -> None:
    for path, value in expect_object(properties, place).items():
        if path != WHOLE and not path.startswith(WHOLE + "."):
            raise bad(f"the name {path!r} is not known here", place, advice=suggestion(path, [WHOLE]))
        if path == WHOLE:
            expect_object(value, f"{place}.{path}")
        for fault in faults(value):
            where = ".".join(filter(None, (place, path, twin_limits.place(fault.path))))
            raise bad(fault.what, where, advice=fault.advice)
        if (size := size_bytes(value)) > MAX_PROPERTIES_BYTES:
            raise bad(f"has {size} bytes, the limit is {MAX_PROPERTIES_BYTES}", f"{place}.{path}")


def _check_version(version: str, place: str) -> None:
    if not _SCHEMA_VERSION.fullmatch(version):
        raise bad(f"schemaVersion {version!r} is not known", f"{place}.schemaVersion", advice="use 1.1 or 1.2")
