"""Automatic configurations: deployments for edge devices, desired properties for devices and modules.

Where IoT Hub looks every few minutes for devices that a condition now matches or no longer does, this looks at once:
after each change of a configuration, of a twin, of the registry. A device that nothing targets any more keeps what it
has, as in IoT Hub.
"""

# ruff: noqa: S608 - these are queries in IoT Hub's language over documents, not SQL

from __future__ import annotations

import base64
import json
import re
import sqlite3
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from edgeclave.deployment.conditions import Condition
from edgeclave.edge.store import StoreError
from edgeclave.simulator import layers
from edgeclave.simulator.deploy import apply_content, apply_entries, check_content
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.identities import HubIdentity, IdentityName
from edgeclave.simulator.layers import MODULE_CONDITION, Configuration
from edgeclave.simulator.log import logger
from edgeclave.simulator.queries import lookup, parse_condition, parse_query
from edgeclave.simulator.twin_document import dump
from edgeclave.simulator.twin_view import twin_view

MAX_CONFIGURATIONS = 100  # IoT Hub's limit of a standard hub
MAX_METRICS = 5
_ID = re.compile(r"[A-Za-z0-9\-:+%_#*?!(),=@;]{1,128}")
TARGETED, APPLIED = "Targeted", "Applied"
_log = logger("configurations")


class Configurations:
    """The hub's configurations, on disk; effects on twins come in the turn after the change that causes them."""

    def __init__(self, hub: EdgeHub) -> None:
        self._hub = hub
        self._unfinished = False
        rows = hub.store.connection.execute("SELECT * FROM configurations")
        self._all = {row["id"]: _configuration(row) for row in rows}
        hub.twins.on_changed.append(self._twin_changed)
        hub.identities.on_created.append(lambda identity: self._twin_changed(identity.name))
        self.evaluate()  # a change may have been the last thing before a kill

    def all(self) -> list[Configuration]:
        return [self._all[name] for name in sorted(self._all)]

    def get(self, configuration_id: str) -> Configuration:
        """Raises HubError 404."""
        if configuration_id not in self._all:
            raise HubError(404, "ConfigurationNotFound", f"there is no configuration {configuration_id[:128]!r}")
        return self._all[configuration_id]

    def put(self, configuration_id: str, document: Mapping[str, Any], *, if_match: str | None = None) -> Configuration:
        """Creates, or replaces when an etag is given.

        Raises:
            HubError: 400 for what it holds, 403 too many, 404, 409 exists already, 412 stale etag.
        """
        if not _ID.fullmatch(configuration_id):
            raise bad_request(f"{configuration_id[:128]!r} is not the id of a configuration")
        condition = parse_target(document.get("targetCondition"))
        _check(document)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        old = self._all.get(configuration_id)
        if if_match is None and old is not None:
            raise HubError(409, "ConfigurationAlreadyExists", f"there is a configuration {configuration_id!r} already")
        if if_match is not None:
            self._check_etag(configuration_id, if_match)
        if old is not None and old.content != (document.get("content") or {}):
            raise bad_request("the content of a configuration cannot be changed", advice="create another one")
        if old is None and len(self._all) >= MAX_CONFIGURATIONS:
            raise HubError(403, "QuotaExceeded", f"a hub has at most {MAX_CONFIGURATIONS} configurations")
        version = _version(old.etag) + 1 if old else 1
        created = old.created if old else now
        with self._hub.store.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO configurations VALUES (?, ?, ?, ?, ?)",
                (configuration_id, dump(document), version, created, now),
            )
        made = Configuration(configuration_id, dict(document), _etag(version), created, now, condition)
        self._hub.store.after_commit(lambda error: None if error else self._stored(made))
        return made

    def delete(self, configuration_id: str, *, if_match: str) -> None:
        """Raises HubError 404, 412."""
        self._check_etag(configuration_id, if_match)
        with self._hub.store.write() as connection:
            connection.execute("DELETE FROM configurations WHERE id = ?", (configuration_id,))
        self._hub.store.after_commit(lambda error: None if error else self._removed(configuration_id))

    def statuses(self, identity: HubIdentity) -> dict[str, dict[str, str]]:
        """The `configurations` member of a twin: which target it, and whether they count."""
        if not self._all:
            return {}
        device = identity.name.module_id == "" or identity.name.module_id == layers.EDGE_AGENT
        owner = self._hub.identities.find(IdentityName(identity.name.device_id)) if device else identity
        targeting = self._targeting(owner, of_modules=not device) if owner else []
        deployments = {each.id for each in layers.stack(targeting)}
        return {
            each.id: {"status": APPLIED if not each.modules_content or each.id in deployments else TARGETED}
            for each in targeting
        }

    def metrics(self, configuration: Configuration) -> dict[str, Any]:
        """`systemMetrics` and `metrics` with their results."""
        custom = (configuration.document.get("metrics") or {}).get("queries") or {}
        system = _system_queries(configuration)
        return {
            "systemMetrics": {"results": self._count(system), "queries": system},
            "metrics": {"results": self._count(custom), "queries": custom},
        }

    def evaluate(self) -> None:
        """Brings every twin to what the configurations say."""
        if self._all:
            for identity in [*self._hub.identities.devices(), *self._hub.identities.modules()]:
                self._apply(identity)

    def views(self, *, of_modules: bool) -> list[dict[str, Any]]:
        """What queries run over: all twins with their configurations' status."""
        identities = self._hub.identities.modules() if of_modules else self._hub.identities.devices()
        return [self.view(identity) for identity in identities]

    def view(self, identity: HubIdentity) -> dict[str, Any]:
        """A twin as IoT Hub shows it."""
        return twin_view(self._hub, identity) | {"configurations": self.statuses(identity)}

    def catch_up(self) -> None:
        """Does what could not be stored before; cheap when there is nothing."""
        if self._unfinished:
            self._unfinished = False
            self.evaluate()

    def _count(self, queries: Mapping[str, str]) -> dict[str, int]:
        results = {}
        for name, text in queries.items():
            query = parse_query(text)
            results[name] = len(query.run(self.views(of_modules=query.source == "devices.modules")))
        return results

    def _targeting(self, identity: HubIdentity, *, of_modules: bool) -> list[Configuration]:
        candidates = [each for each in self._all.values() if each.of_modules == of_modules and each.condition]
        if not candidates:
            return []
        view = twin_view(self._hub, identity)
        return [
            each
            for each in candidates
            if each.condition is not None
            and each.condition.matches(partial(lookup, view))
            and (identity.iot_edge or not each.modules_content)
        ]

    def _apply(self, identity: HubIdentity) -> None:
        """A configuration that cannot be applied to one device is logged and leaves it as it is."""
        name = identity.name
        targeting = sorted(
            self._targeting(identity, of_modules=bool(name.module_id)), key=lambda configuration: configuration.rank
        )
        if not targeting:
            return
        kind = "moduleContent" if name.module_id else "deviceContent"
        entries: dict[str, Any] = {}
        for each in targeting:
            entries = layers.put_on(entries, each.content.get(kind) or {})
        deployments = layers.stack(targeting)
        try:
            with self._hub.store.write():
                apply_entries(self._hub, name, entries)
                if deployments:
                    content = layers.combined([each.modules_content for each in deployments])
                    apply_content(self._hub, name.device_id, content)
        except HubError as error:
            _log.warning("a configuration cannot be applied", target=str(name), reason=str(error))
        except StoreError as error:
            self._unfinished = True
            _log.error("cannot store", target=str(name), error=str(error))

    def _twin_changed(self, name: IdentityName) -> None:
        identity = self._hub.identities.find(name)
        if identity is not None and self._all:
            self._apply(identity)

    def _stored(self, configuration: Configuration) -> None:
        self._all[configuration.id] = configuration
        self.evaluate()

    def _removed(self, configuration_id: str) -> None:
        self._all.pop(configuration_id, None)
        self.evaluate()

    def _check_etag(self, configuration_id: str, if_match: str) -> None:
        if if_match not in ("*", self.get(configuration_id).etag):
            raise HubError(412, "PreconditionFailed", f"the etag of {configuration_id!r} is not the one given")


def _system_queries(configuration: Configuration) -> dict[str, str]:
    name, target = configuration.id, str(configuration.document.get("targetCondition") or "")
    if not configuration.modules_content:
        source = "devices.modules" if configuration.of_modules else "devices"
        bare = target[len(MODULE_CONDITION) :] if configuration.of_modules else target
        return {
            "targetedCount": f"select deviceId from {source}" + _where(bare),
            "appliedCount": f"select deviceId from {source} where configurations.[[{name}]].status = 'Applied'",
        }
    agent = f"select deviceId from devices.modules where moduleId = '{layers.EDGE_AGENT}' and "
    applied = f"{agent}configurations.[[{name}]].status = 'Applied'"
    current = f"{applied} and properties.desired.$version = properties.reported.lastDesiredVersion"
    status = "properties.reported.lastDesiredStatus.code"
    return {
        "targetedCount": "select deviceId from devices" + _where(target, "capabilities.iotEdge = true"),
        "appliedCount": applied,
        "reportedSuccessfulCount": f"{current} and {status} = 200",
        "reportedFailedCount": f"{current} and {status} != 200",
    }


def _where(condition: str, *more: str) -> str:
    if not condition.strip():
        return " where false"
    parts = [*more, *([f"({condition})"] if condition.strip() != "*" else [])]
    return f" where {' and '.join(parts)}" if parts else ""


def parse_target(text: object) -> Condition | None:
    """The parsed condition; None when there is none, so that nothing is targeted.

    Raises:
        HubError: 400.
    """
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise bad_request("must be text", where="targetCondition")
    bare = text[len(MODULE_CONDITION) :] if text.lower().startswith(MODULE_CONDITION) else text
    return parse_condition("true" if bare.strip() == "*" else bare, where="targetCondition")


def _check(document: Mapping[str, Any]) -> None:
    content = document.get("content") or {}
    if not isinstance(content, Mapping):
        raise bad_request("must be an object", where="content")
    if (modules := content.get("modulesContent")) is not None:
        check_content(modules)
    for kind in ("deviceContent", "moduleContent"):
        entries = content.get(kind) or {}
        if not isinstance(entries, Mapping):
            raise bad_request("must be an object", where=f"content.{kind}")
        for path in entries:
            if path != layers.WHOLE:
                layers.parts_of(path)
    priority = document.get("priority") or 0
    if not isinstance(priority, int) or isinstance(priority, bool) or not 0 <= priority < 2**31:
        raise bad_request("must be a whole number from 0 on", where="priority")
    metrics = document.get("metrics") or {}
    queries = metrics.get("queries") or {} if isinstance(metrics, Mapping) else None
    if not isinstance(queries, Mapping) or not all(isinstance(text, str) for text in queries.values()):
        raise bad_request("must be an object of names and queries", where="metrics.queries")
    if len(queries) > MAX_METRICS:
        raise bad_request(f"at most {MAX_METRICS} metrics", where="metrics.queries")
    for text in queries.values():
        parse_query(text)


def _configuration(row: sqlite3.Row) -> Configuration:
    document = json.loads(row["document"])
    condition = parse_target(document.get("targetCondition"))
    return Configuration(row["id"], document, _etag(row["version"]), row["created"], row["updated"], condition)


def _etag(version: int) -> str:
    return base64.b64encode(str(version).encode()).decode()


def _version(etag: str) -> int:
    return int(base64.b64decode(etag))
