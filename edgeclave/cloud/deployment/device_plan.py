"""A deployment for one device: read what it has, compare, apply if nothing changed meanwhile, look at the twins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeclave.cloud.deployment.difference import WHOLE, Content, Difference, compare
from edgeclave.cloud.deployment.hub import Hub, Twins
from edgeclave.cloud.deployment.states import AGENT, Level, State, device_states
from edgeclave.errors import ConfigurationError, EdgeclaveError

APPLIED = "Applied"


class DevicePlan:
    """What is to be deployed to one device. `difference` is to what the hub had when the plan was made.

    Raises:
        EdgeclaveError: `no-such-device`, `not-an-edge-device`, or what the hub refuses.
    """

    def __init__(self, hub: Hub, device_id: str, content: Content) -> None:
        self._hub = hub
        self._device_id = device_id
        self._content = content
        self._had = self._read()
        self.difference = self._compare(self._had)
        self.notes = self._notes()
        self.title = f"device {device_id}"

    @property
    def settled(self) -> bool:
        """Whether the hub wants it already."""
        return self.difference.empty

    def check(self) -> None:
        """There is nothing that forbids to apply it."""

    def apply(self) -> None:
        """Raises EdgeclaveError `changed-meanwhile`: with `difference` brought up to date, nothing is applied."""
        now = self._read()
        if _versions(now) != _versions(self._had):
            self._had, self.difference = now, self._compare(now)
            raise EdgeclaveError(
                "changed-meanwhile",
                "somebody else changed this device's deployment after the difference was shown; nothing was applied",
                where=self._device_id,
                advice="look at the difference as it is now, then run the command again",
            )
        self._hub.apply(self._device_id, self._content)

    def targets(self) -> list[str]:
        return [self._device_id]

    def counts(self) -> Mapping[str, int]:
        return {}

    def states(self, device_id: str) -> list[State]:
        """How the device does now."""
        twins = self._read()
        if not self._compare(twins).empty:
            what = "its deployment was replaced by another one since"
            return [State(device_id, AGENT, Level.FAILED, what, "ask who else deploys to it, then deploy again")]
        return device_states(twins, lambda: self._hub.answers(device_id))

    def _read(self) -> Twins:
        twins = self._hub.twins(self._device_id, self._content)
        if twins is not None:
            return twins
        if self._hub.twin(self._device_id) is None:
            raise ConfigurationError(
                "no-such-device",
                f"there is no device {self._device_id!r} in {self._hub.host}",
                where="--device",
                advice="check the spelling, and that it is this hub; a device of DPS is there once it has registered",
            )
        raise ConfigurationError(
            "not-an-edge-device",
            f"{self._device_id!r} is no IoT Edge device",
            where="--device",
            advice="create it as an IoT Edge device: `az iot hub device-identity create --edge-enabled`",
        )

    def _compare(self, had: Twins) -> Difference:
        before = {name: {WHOLE: dict(twin.desired)} for name, twin in had.all().items()}
        return Difference(modules=tuple(compare(before, self._content)))

    def _notes(self) -> list[str]:
        applied = [name for name, status in self._had.agent.configurations.items() if status == APPLIED]
        if not applied:
            return []
        return [
            f"the automatic deployment {', '.join(applied)} targets this device: IoT Hub puts it back over yours; "
            "deploy with --config-id, or take the device out of its target condition first"
        ]


def _versions(twins: Twins) -> Mapping[str, Any]:
    return {name: twin.desired_version for name, twin in twins.all().items()}
