"""What the hub answers when it refuses: an HTTP status and IoT Hub's own name for it."""

from __future__ import annotations

import re

from edgeclave.errors import EdgeclaveError


class HubError(EdgeclaveError):
    """A request the hub refuses.

    Args:
        status: HTTP status, also used as the status of an MQTT twin response.
        name: IoT Hub's error name, e.g. `DeviceNotOnline`; the kebab-case `code` is made from it.
        what: one sentence for the person whose request it was.
    """

    def __init__(self, status: int, name: str, what: str, *, where: str = "", advice: str = "") -> None:
        super().__init__(re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower(), what, where=where, advice=advice)
        self.status = status
        self.name = name


def bad_request(what: str, *, where: str = "", advice: str = "") -> HubError:
    return HubError(400, "ArgumentInvalid", what, where=where, advice=advice)
