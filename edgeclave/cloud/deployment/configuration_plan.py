"""An automatic deployment: a configuration of the hub, for every edge device that its condition matches.

IoT Hub never changes the content of a configuration, only its target, priority and labels. So another content needs
another id, with a higher priority; going back is applying the older template again under its own id, with a priority
above that of the newer one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from azure.iot.hub.protocol.models import (  # type: ignore[import-untyped]
    Configuration,
    ConfigurationContent,
)

from edgeclave.cloud.deployment.difference import EDGE_AGENT, WHOLE, Content, Difference, compare, compare_values
from edgeclave.cloud.deployment.hub import Hub, RefusedByHubError
from edgeclave.cloud.deployment.states import AGENT, Level, State, device_states
from edgeclave.errors import ConfigurationError, EdgeclaveError

SHOWN_DEVICES = 10
APPLIED = "Applied"
_EDGE = "capabilities.iotEdge = true"


class Wanted(msgspec.Struct, frozen=True):
    """What the command line asks for."""

    id: str
    target: str
    priority: int
    labels: dict[str, str]
    content: Content


class ConfigurationPlan:
    """What is to be an automatic deployment.

    Raises:
        EdgeclaveError: `bad-target`, `content-cannot-change`, or what the hub refuses.
    """

    def __init__(self, hub: Hub, wanted: Wanted) -> None:
        self._hub = hub
        self._wanted = wanted
        if problem := hub.condition_problem(wanted.target):
            raise ConfigurationError(
                "bad-target",
                f"the hub cannot use the target condition: {problem}",
                where="--target",
                advice="write for example \"tags.role = 'press'\", or * for all devices",
            )
        self._had = hub.configuration(wanted.id)
        self._rival: Any = None
        self.difference = self._compare()
        self.title = f"automatic deployment {wanted.id}"
        self.notes = self._notes()

    @property
    def settled(self) -> bool:
        """Whether the hub has it already."""
        return self._had is not None and self.difference.empty

    def check(self) -> None:
        """Raises ConfigurationError `content-cannot-change` when there is one of this id with another content."""
        if self._had is not None and self.difference.modules:
            raise ConfigurationError(
                "content-cannot-change",
                f"there is a deployment {self._wanted.id!r} already, and IoT Hub never changes its content",
                where="--config-id",
                advice=f"choose another id, with a priority above {self._had.priority}; to go back, apply the older "
                "template under its own id with a higher priority",
            )

    def apply(self) -> None:
        """Raises EdgeclaveError `changed-meanwhile`: with `difference` brought up to date, nothing is applied."""
        wanted = dict(self._wanted.content)
        made = Configuration(
            id=self._wanted.id,
            schema_version="1.0",
            labels=self._wanted.labels,
            content=self._had.content if self._had is not None else ConfigurationContent(modules_content=wanted),
            target_condition=self._wanted.target,
            priority=self._wanted.priority,
            metrics=self._had.metrics if self._had is not None else None,
        )
        try:
            self._hub.put_configuration(made, self._had.etag if self._had is not None else None)
        except RefusedByHubError as refusal:
            if refusal.status in (409, 412):
                self._had = self._hub.configuration(self._wanted.id)
                self.difference = self._compare()
                raise EdgeclaveError(
                    "changed-meanwhile",
                    "somebody else changed this deployment after the difference was shown; nothing was applied",
                    where=self._wanted.id,
                    advice="look at the difference as it is now, then run the command again",
                ) from refusal
            raise

    def targets(self) -> list[str]:
        """The edge devices that match now."""
        condition = self._wanted.target.strip()
        where = _EDGE if condition == "*" else f"{_EDGE} AND ({condition})"
        return [twin.device_id for twin in self._hub.query(f"SELECT deviceId FROM devices WHERE {where}")]  # noqa: S608

    def counts(self) -> Mapping[str, int]:
        """IoT Hub's own: targetedCount, appliedCount, reportedSuccessfulCount, reportedFailedCount."""
        configuration = self._hub.configuration(self._wanted.id)
        metrics = configuration.system_metrics if configuration is not None else None
        return {str(name): int(count) for name, count in ((metrics and metrics.results) or {}).items()}

    def states(self, device_id: str) -> list[State]:
        """How a targeted device does now."""
        twins = self._hub.twins(device_id)
        if twins is None:
            return [State(device_id, AGENT, Level.WAITING, "is no longer in the hub")]
        status = twins.agent.configurations.get(self._wanted.id)
        if status == APPLIED:
            return device_states(twins, lambda: self._hub.answers(device_id))
        if status is None:
            what = "the hub has not put the deployment on it yet"
            return [State(device_id, AGENT, Level.WAITING, what, "IoT Hub looks for devices every few minutes")]
        others = [name for name, each in twins.agent.configurations.items() if each == APPLIED]
        what = f"another deployment counts there: {', '.join(others) or 'of a higher priority'}"
        return [State(device_id, AGENT, Level.FAILED, what, "give this one a higher --priority")]

    def _compare(self) -> Difference:
        wanted, had = self._wanted, self._had
        self._rival = self._closest() if had is None else None
        below = had if had is not None else self._rival
        content = (below.content.modules_content or {}) if below is not None else {}
        settings = {"target": wanted.target, "priority": wanted.priority, "labels": wanted.labels}
        before: dict[str, Any] = {}
        if below is not None:
            before = {"target": below.target_condition, "priority": below.priority, "labels": dict(below.labels or {})}
        modules = compare(content, wanted.content)
        return Difference(tuple(modules), tuple(compare_values(before, settings)))

    def _closest(self) -> Configuration | None:
        """What the devices have now, if the new one takes its place: the strongest of its kind with the same target."""
        layered = _is_layer(self._wanted.content)
        rivals = [
            each
            for each in self._hub.configurations()
            if each.target_condition == self._wanted.target
            and each.content is not None
            and each.content.modules_content
            and _is_layer(each.content.modules_content) == layered
        ]
        return max(rivals, key=lambda each: each.priority or 0, default=None)

    def _notes(self) -> list[str]:
        devices = self.targets()
        more = f" and {len(devices) - SHOWN_DEVICES} more" if len(devices) > SHOWN_DEVICES else ""
        count = "1 device" if len(devices) == 1 else f"{len(devices)} devices"
        notes = [f"targets {count} now: {', '.join(devices[:SHOWN_DEVICES])}{more}"]
        if not devices:
            notes = ["targets no device now: check --target if there should be one"]
        if self._rival is not None:
            notes.append(f"compared with the deployment {self._rival.id}, which has the same target")
            if self._wanted.priority < (self._rival.priority or 0):
                notes.append(
                    f"its priority {self._wanted.priority} is below that of {self._rival.id}: it will not count"
                )
        return notes


def _is_layer(content: Mapping[str, Mapping[str, Any]]) -> bool:
    return WHOLE not in content.get(EDGE_AGENT, {})
