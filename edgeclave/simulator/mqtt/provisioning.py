"""A client of the provisioning service on the MQTT port: register, then ask for the outcome (DPS, MQTT support).

$dps/registrations/PUT/iotdps-register/?$rid=                       -> $dps/registrations/res/202/?$rid=&retry-after=
$dps/registrations/GET/iotdps-get-operationstatus/?$rid=&operationId= -> $dps/registrations/res/200/?$rid=
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from edgeclave.edge.store import StoreError
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.log import logger
from edgeclave.simulator.mqtt.codec import SUBSCRIPTION_REFUSED, Publish, Subscribe, encode_publish
from edgeclave.simulator.mqtt.topics import request_id_of
from edgeclave.simulator.provisioning.registration import Admission, Registrations
from edgeclave.simulator.store import Store
from edgeclave.simulator.twin_document import dump, load

RESPONSES = "$dps/registrations/res/#"
MAX_PAYLOAD_BYTES = 32 * 1024
RETRY_SECONDS = 1
_USER_NAME = re.compile(r"(?P<scope>[^/]{1,64})/registrations/(?P<id>[^/]{1,128})/api-version=[^/]*")
_REGISTER = "$dps/registrations/PUT/iotdps-register/?"
_STATUS = "$dps/registrations/GET/iotdps-get-operationstatus/?"
_log = logger("provisioning")


def parse_user_name(text: str) -> tuple[str, str] | None:
    """(id scope, registration id), or None when it is a user name of the hub."""
    match = _USER_NAME.fullmatch(text)
    return (match["scope"], match["id"]) if match else None


class Registering:
    """One admitted connection."""

    def __init__(
        self, admission: Admission, registrations: Registrations, store: Store, write: Callable[[bytes], None]
    ) -> None:
        self._admission = admission
        self._registrations = registrations
        self._store = store
        self._write = write
        self._operation = ""

    def granted(self, packet: Subscribe) -> tuple[int, ...]:
        """The return codes for a subscription; there is only one thing to hear."""
        return tuple(
            min(qos, 1) if topic_filter == RESPONSES else SUBSCRIPTION_REFUSED for topic_filter, qos in packet.filters
        )

    def publish(self, packet: Publish) -> None:
        """Raises HubError for a topic that is not DPS's; all else is answered with a status."""
        if packet.topic.startswith(_REGISTER):
            request = request_id_of(packet.topic.removeprefix(_REGISTER))
            self._answering(request, lambda: self._register(request, packet.body))
        elif packet.topic.startswith(_STATUS):
            query = packet.topic.removeprefix(_STATUS)
            request = request_id_of(query)
            operation = parse_qs(query).get("operationId", [""])[0]
            self._answering(request, lambda: self._status(request, operation))
        else:
            raise bad_request(f"nothing is known about the topic {packet.topic[:120]!r}")

    def _answering(self, request: str, act: Callable[[], None]) -> None:
        try:
            act()
        except HubError as error:
            _log.warning("registration refused", id=self._admission.registration_id, reason=str(error))
            self._refuse(request, error)
        except StoreError as error:
            _log.error("cannot store", error=str(error))
            self._refuse(request, HubError(503, "ServiceUnavailable", error.what))

    def _register(self, request: str, body: bytes) -> None:
        if len(body) > MAX_PAYLOAD_BYTES:
            raise HubError(413, "MessageTooLarge", f"a registration has at most {MAX_PAYLOAD_BYTES} bytes")
        document = load(body, "registration") if body else {}
        if not isinstance(document, dict):
            raise bad_request("must be an object", where="registration")
        if document.get("registrationId", self._admission.registration_id) != self._admission.registration_id:
            raise bad_request("is not the one that was proven", where="registrationId")
        self._registrations.register(self._admission)
        operation = self._operation = f"4.{uuid.uuid4().hex}"

        def settled(error: StoreError | None) -> None:
            if error is None:
                status = {"operationId": operation, "status": "assigning"}
                self._send(f"202/?$rid={request}&retry-after={RETRY_SECONDS}", status)
            else:
                self._refuse(request, HubError(503, "ServiceUnavailable", error.what))

        self._store.after_commit(settled)

    def _status(self, request: str, operation: str) -> None:
        if not operation or operation != self._operation:
            raise HubError(404, "OperationNotFound", "there is no such operation on this connection")
        state = self._registrations.state(self._admission.registration_id)
        status = {"operationId": operation, "status": "assigned", "registrationState": state}
        self._send(f"200/?$rid={request}", status)

    def _refuse(self, request: str, error: HubError) -> None:
        code = error.status * 1000
        self._send(f"{error.status}/?$rid={request}", {"errorCode": code, "trackingId": "", "message": str(error)})

    def _send(self, answer: str, document: dict[str, Any]) -> None:
        self._write(encode_publish(Publish(f"$dps/registrations/res/{answer}", dump(document).encode())))
