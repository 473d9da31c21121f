"""What an authenticated client's publishes do: telemetry, twin reads, reported patches, answers to direct methods."""

from __future__ import annotations

from edgeclave.edge.store import StoreError
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import HubIdentity
from edgeclave.simulator.links import Link
from edgeclave.simulator.log import logger
from edgeclave.simulator.message import Message, decode_properties
from edgeclave.simulator.mqtt.codec import Publish
from edgeclave.simulator.mqtt.topics import (
    MethodResponse,
    ReportedPatch,
    Telemetry,
    TwinGet,
    parse_topic,
)
from edgeclave.simulator.twin_document import dump, load

CANNOT_STORE = 503
_log = logger("mqtt")


class Requests:
    """Turns publishes into calls of the edge hub."""

    def __init__(self, hub: EdgeHub) -> None:
        self._hub = hub

    def handle(self, sender: HubIdentity, link: Link, packet: Publish) -> bool:
        """Whether it has an answer of its own, with a status, so that its PUBACK says no more than that it came.

        Raises:
            HubError, StoreError: the connection has to end.
        """
        request = parse_topic(packet.topic, sender.name)
        if isinstance(request, Telemetry):
            properties, system = decode_properties(request.property_bag)
            self._hub.accept(sender, Message(packet.body, properties, system))
            return False
        if isinstance(request, TwinGet):
            body = dump(self._hub.get_twin(sender.name)).encode()
            link.send(f"$iothub/twin/res/200/?$rid={request.request_id}", body)
        elif isinstance(request, ReportedPatch):
            self._reported(sender, link, request.request_id, packet.body)
        elif isinstance(request, MethodResponse):
            self._hub.methods.answered(sender.name, request.request_id, request.status, packet.body)
        return True

    def _reported(self, sender: HubIdentity, link: Link, request_id: str, body: bytes) -> None:
        def refuse(status: int, error: HubError | StoreError) -> None:
            _log.warning("reported properties refused", client=str(sender.name), reason=str(error))
            link.send(f"$iothub/twin/res/{status}/?$rid={request_id}", dump({"message": str(error)}).encode())

        def settled(error: StoreError | None) -> None:
            if error is None:
                link.send(f"$iothub/twin/res/204/?$rid={request_id}&$version={version}", b"")
            else:
                refuse(CANNOT_STORE, error)

        try:
            version = self._hub.patch_reported(sender.name, load(body, "properties.reported"))
        except HubError as error:
            refuse(error.status, error)
        except StoreError as error:
            refuse(CANNOT_STORE, error)
        else:
            self._hub.store.after_commit(settled)
