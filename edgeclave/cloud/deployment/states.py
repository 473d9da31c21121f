"""What the twins of a device say about its deployment: pure rules over what edgeAgent and our modules report.

A deployment runs on a device when edgeAgent has acknowledged the version that the hub wants (lastDesiredVersion, with
status 200), every module runs the image it should, every trusted application runs the package it should, and no module
reports that it refuses its twin. Twins keep what a device said last: what a module reports counts only while edgeHub
has it connected, and all of it only if edgeAgent answers now. Rules of edgeAgent: iotedge,
doc/reported_states_during_deployment.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from edgeclave.cloud.deployment.hub import EDGE_HUB, Twin, Twins

AGENT = "edgeAgent"
_CODES = {
    400: "cannot read the deployment",
    412: "does not know the deployment's schema version",
    417: "has no deployment",
}
_PULL = re.compile(
    r"pull(ing)? image|manifest unknown|pull access denied|no such image|repository does not exist", re.I
)
_TWIN_REFUSED = ("malformed-twin", "unknown-twin-field", "bad-twin", "bad-beacon", "too-many-trusted-apps")
"""Reasons that are about the twin; others, such as a trusted application that does not run yet, may pass."""
_FETCH = re.compile(r"package-unavailable|disk-full|registry-.*")
"""Reasons for which ta_runner goes on with the former version and fetches the new one again."""
LOOK_ON_DEVICE = (
    "on the device: is it switched on, online and its clock right? `sudo iotedge system status`, then "
    "`sudo iotedge check` and `sudo iotedge system logs`"
)


class Level(StrEnum):
    OK = "ok"
    WAITING = "waiting"  # may come right by itself
    FAILED = "failed"  # stays so until somebody changes something


class State(msgspec.Struct, frozen=True):
    """Of one part of a device: edgeAgent, a module, `ta_runner/anomaly`, ..."""

    device: str
    part: str
    level: Level
    what: str
    advice: str = ""


def device_states(twins: Twins, answers: Callable[[], bool]) -> list[State]:
    """Every part's state, the edgeAgent's first.

    Args:
        answers: whether edgeAgent answers at this moment; asked only when all else is well.
    """
    agent = _agent(twins)
    if agent.level is not Level.OK and not _acknowledged(twins.agent):
        return [agent]  # what it reports of modules is about an older deployment
    states = [agent, *_modules(twins), *_trusted_apps(twins)]
    if all(state.level is Level.OK for state in states) and not answers():
        what = f"does not answer now{_connection(twins.agent)}: all that the device reported may be out of date"
        states[0] = State(agent.device, AGENT, Level.WAITING, what, LOOK_ON_DEVICE)
    return states


def _acknowledged(agent: Twin) -> bool:
    return agent.reported.get("lastDesiredVersion") == agent.desired_version


def _connection(agent: Twin) -> str:
    return f"; the hub shows it as {agent.connection_state.lower()}" if agent.connection_state else ""


def _agent(twins: Twins) -> State:
    agent, device = twins.agent, twins.device.device_id
    connection = _connection(agent)
    version = agent.reported.get("lastDesiredVersion")
    if version is None:
        return State(device, AGENT, Level.WAITING, f"has never reported{connection}", LOOK_ON_DEVICE)
    if not _acknowledged(agent):
        since = f", last reported at {agent.reported_at}" if agent.reported_at else ""
        what = f"has version {version} of the deployment, the hub {agent.desired_version}{since}{connection}"
        return State(device, AGENT, Level.WAITING, what, LOOK_ON_DEVICE)
    status = agent.reported.get("lastDesiredStatus") or {}
    code, description = status.get("code"), str(status.get("description") or "")
    if code == 200:
        wanted, other = (_image(_system(each).get(AGENT)) for each in (agent.desired, agent.reported))
        if other and wanted and other != wanted:
            return State(device, AGENT, Level.WAITING, f"still has the image {other}", LOOK_ON_DEVICE)
        return State(device, AGENT, Level.OK, f"has version {version} of the deployment")
    if code in _CODES:
        return State(
            device, AGENT, Level.FAILED, _join(_CODES[code], description), "correct the template, then deploy again"
        )
    if code == 406:
        return State(device, AGENT, Level.WAITING, f"does not run or is not connected{connection}", LOOK_ON_DEVICE)
    if _PULL.search(description):
        what = _join("cannot pull an image", description)
        advice = "check the image's name, that it was pushed for this device's architecture, and registryCredentials"
        return State(device, AGENT, Level.WAITING, what, advice)
    what = _join(f"could not carry out the deployment (code {code})", description)
    return State(device, AGENT, Level.WAITING, what, "on the device: `sudo iotedge logs edgeAgent`")


def _modules(twins: Twins) -> Iterator[State]:
    agent, device = twins.agent, twins.device.device_id
    for kind in ("systemModules", "modules"):
        reported = agent.reported.get(kind) or {}
        for name, wanted in sorted((agent.desired.get(kind) or {}).items()):
            if name != AGENT and isinstance(wanted, Mapping):
                yield _module(device, name, wanted, reported.get(name) or {})


def _module(device: str, name: str, wanted: Mapping[str, Any], reported: Mapping[str, Any]) -> State:
    logs = f"on the device: `sudo iotedge logs {name}`"
    status = str(reported.get("runtimeStatus") or "")
    description = str(reported.get("statusDescription") or "")
    if wanted.get("status", "running") == "stopped":
        stopped = status in ("", "stopped", "failed")
        return State(device, name, Level.OK if stopped else Level.WAITING, "stopped" if stopped else "still runs")
    if not status:
        return State(device, name, Level.WAITING, "is not created yet", "its image may still be on the way")
    image, other = _image(wanted), _image(reported)
    if other and image and other != image:
        return State(device, name, Level.WAITING, f"still has the image {other}", "the new one may be on the way")
    restarts = int(reported.get("restartCount") or 0)
    counted = f", restarted {restarts} times" if restarts else ""
    started = not description.startswith("not started")
    exited = _join(f"exit code {reported.get('exitCode', '?')}", description) if started else description
    if status == "running":
        return State(device, name, Level.OK, f"running{counted}")
    if status == "backoff":
        return State(device, name, Level.WAITING, f"ends again and again{counted}: {exited}", logs)
    if status == "failed":
        if wanted.get("restartPolicy") == "always" and started:
            return State(device, name, Level.WAITING, f"failed{counted}: {exited}", logs)
        return State(device, name, Level.FAILED, f"failed{counted}: {exited}", logs)
    if status == "stopped":
        final = wanted.get("restartPolicy") == "never"
        return State(device, name, Level.FAILED if final else Level.WAITING, f"has ended: {exited}", logs)
    return State(device, name, Level.WAITING, _join(status, description), logs)


def _trusted_apps(twins: Twins) -> Iterator[State]:
    """Of every module that is to run: what it makes of its twin, and the trusted applications that it wants."""
    device = twins.device.device_id
    for name, entry in sorted((twins.agent.desired.get("modules") or {}).items()):
        if not isinstance(entry, Mapping) or entry.get("status", "running") == "stopped":
            continue
        twin = twins.modules.get(name)
        if twin is None:
            yield State(device, f"{name} twin", Level.WAITING, "is not in the hub yet", "edgeAgent makes it there")
            continue
        if _reads(twin) and _disconnected(twins, name):
            what = "is not connected to edgeHub: what it reported may be out of date"
            yield State(device, f"{name} twin", Level.WAITING, what, f"on the device: `sudo iotedge logs {name}`")
            continue
        apps = twin.desired.get("trustedApps")
        reported = twin.reported.get("trustedApps")
        for app, wanted in sorted(apps.items() if isinstance(apps, Mapping) else ()):
            said = reported.get(app) if isinstance(reported, Mapping) else None
            yield _trusted_app(device, f"{name}/{app}", wanted, said)
        if problem := _problem(twin):
            refused = problem.get("code") in _TWIN_REFUSED or problem is not twin.reported.get("reason")
            what = f"{'refuses its twin: ' if refused else ''}{problem.get('what')} [{problem.get('code')}]"
            level = Level.FAILED if refused else Level.WAITING
            yield State(device, f"{name} twin", level, what, str(problem.get("advice") or ""))
        elif "policy" in twin.desired and not isinstance(twin.reported.get("policy"), Mapping):
            yield State(device, f"{name} twin", Level.WAITING, "has not reported its policy yet")


def _reads(twin: Twin) -> bool:
    """Whether the module has desired properties, which it cannot follow without a connection."""
    return any(not member.startswith("$") for member in twin.desired)


def _disconnected(twins: Twins, name: str) -> bool:
    """Whether edgeHub says so; it lists who has been there since it started, under names as twins can hold them."""
    hub = twins.modules.get(EDGE_HUB)
    clients = hub.reported.get("clients") if hub is not None else None
    key = re.sub(r"[.$ ]", lambda match: f"%{ord(match[0]):02X}", f"{twins.device.device_id}/{name}")
    client = clients.get(key) if isinstance(clients, Mapping) else None
    return isinstance(client, Mapping) and str(client.get("status")).lower() == "disconnected"


def _trusted_app(device: str, part: str, wanted: Any, reported: Any) -> State:
    digest = wanted.get("digest") if isinstance(wanted, Mapping) else None
    if not isinstance(reported, Mapping):
        return State(device, part, Level.WAITING, "is not reported yet")
    reason = reported.get("reason")
    state, running = str(reported.get("state")), reported.get("digest")
    if isinstance(reason, Mapping):
        goes_on = f"the former version {reported.get('version')} goes on; " if state == "running" else ""
        what = f"{goes_on}{reason.get('what')} [{reason.get('code')}]"
        fetched_again = state == "running" and _FETCH.fullmatch(str(reason.get("code")))
        passing = state in ("starting", "backoff") or fetched_again
        level = Level.WAITING if passing else Level.FAILED
        return State(device, part, level, f"{state}: {what}", str(reason.get("advice") or ""))
    if state == "running" and running == digest:
        restarts = int(reported.get("restarts") or 0)
        counted = f", restarted {restarts} times" if restarts else ""
        return State(device, part, Level.OK, f"running, version {reported.get('version')}{counted}")
    if state == "running":
        return State(device, part, Level.WAITING, f"the former version {reported.get('version')} still runs")
    return State(device, part, Level.WAITING, state)


def _problem(twin: Twin) -> Mapping[str, Any] | None:
    """What a module of ours says is wrong: `reason` of most, `policy.problem` of enclave_broker."""
    policy = twin.reported.get("policy")
    found = twin.reported.get("reason") or (policy.get("problem") if isinstance(policy, Mapping) else None)
    return found if isinstance(found, Mapping) else None


def _system(section: Mapping[str, Any]) -> Mapping[str, Any]:
    system = section.get("systemModules")
    return system if isinstance(system, Mapping) else {}


def _image(entry: object) -> str:
    settings = entry.get("settings") if isinstance(entry, Mapping) else None
    return str(settings.get("image") or "") if isinstance(settings, Mapping) else ""


def _join(what: str, description: str) -> str:
    return f"{what}: {description}" if description else what
