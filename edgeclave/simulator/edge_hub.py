"""edgeHub: a message is accepted, stored, routed, and only then acknowledged.

`accept` stores in the store's current group; the transport acknowledges after the commit. So a message that was
acknowledged is in the hub's log, waits for upstream, or is in the input queues of the modules its routes name; or no
route wanted it.
"""

from __future__ import annotations

import json
from urllib.parse import quote

from edgeclave.deployment.routes import DEFAULT_TIME_TO_LIVE_SECONDS, LOWEST_PRIORITY, Route, parse_routes
from edgeclave.deployment.routes import Upstream as UpstreamSink
from edgeclave.errors import ConfigurationError
from edgeclave.simulator.credentials import SAS
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.identities import SYSTEM_MODULES, HubIdentity, Identities, IdentityName
from edgeclave.simulator.inputs import InputQueue
from edgeclave.simulator.links import Links
from edgeclave.simulator.log import logger
from edgeclave.simulator.message import (
    CONNECTION_DEVICE,
    CONNECTION_MODULE,
    MAX_BODY_BYTES,
    OUTPUT,
    SENDER_DEVICE,
    SENDER_MODULE,
    SYSTEM_NAMES,
    Message,
    encode_properties,
    twin_change,
)
from edgeclave.simulator.message_log import StoredMessageLog
from edgeclave.simulator.methods import DirectMethods
from edgeclave.simulator.store import Store
from edgeclave.simulator.twin_document import Section, without_metadata
from edgeclave.simulator.twins import DesiredChange, Twins
from edgeclave.simulator.upstream import Upstream

EDGE_AGENT, EDGE_HUB = SYSTEM_MODULES
DESIRED_FILTER = "$iothub/twin/PATCH/properties/desired/#"
TWIN_CHANGES = "/twinChangeNotifications"
MAX_TOPIC_BYTES = 0xFFFF  # MQTT's own limit
_log = logger("edge-hub")


class EdgeHub:
    """What a connected module can do, independent of the protocol it speaks."""

    def __init__(self, store: Store, identities: Identities, twins: Twins, log: StoredMessageLog, device: str) -> None:
        self.store = store
        self.identities = identities
        self.twins = twins
        self.inputs = InputQueue(store)
        self.links = Links()
        self.upstream = Upstream(store, log, device)
        self.upstream.on_change.append(self._upstream_changed)
        twins.cut_off = self.cut_off
        self.methods = DirectMethods(identities, self.links, self.cut_off)
        self._message_log = log
        self._name = IdentityName(device, EDGE_HUB)
        self._routes: list[Route] = []
        twins.validators.append(self._validate)
        twins.on_desired.append(self._desired_changed)
        identities.on_deleted.append(lambda identity: self._disconnect(identity, "its identity was deleted"))
        identities.on_disabled.append(lambda identity: self._disconnect(identity, "its identity was disabled"))
        self._load_routes()

    def accept(self, sender: HubIdentity, message: Message) -> None:
        """Stores a message for everyone its routes name.

        Raises:
            HubError: 413 when it is too large.
            StoreError: nothing was stored.
        """
        _check_size(message)
        origin = {CONNECTION_DEVICE: sender.name.device_id}
        if sender.name.module_id:
            origin[CONNECTION_MODULE] = sender.name.module_id
        message = Message(message.body, message.properties, {**message.system, **origin})
        with self.store.write():  # all of its routes or none
            routed = self._route(_source(sender.name, message), sender, message)
            if not routed and sender.name.device_id != self._name.device_id:  # a device of the hub, not of this edge
                self._take(sender, message)

    def patch_reported(self, name: IdentityName, patch: object) -> int:
        """Merges a client's reported properties, tells who has a route from them, and returns the new version.

        Raises:
            HubError: 400 for what Azure would refuse.
            StoreError: nothing was stored.
        """
        with self.store.write():
            version = self.twins.patch_reported(name, patch)
            message = twin_change(self._name, name, without_metadata(patch, "properties.reported"))
            self._route(TWIN_CHANGES, self.identities.get(self._name), message)
        return version

    def get_twin(self, name: IdentityName) -> dict[str, object]:
        return self.twins.at_edge(name).for_module()

    def delete_identity(self, name: IdentityName, *, if_match: str) -> None:
        """Deletes an identity of the hub, but not the edge device that this simulator is.

        Raises:
            HubError: 400 for that device and for system modules, 404, 412.
        """
        if name == IdentityName(self._name.device_id):
            what = f"{name.device_id} is the edge device that this simulator is"
            raise bad_request(what, advice="`edgeclave sim up --fresh` makes it anew")
        self.identities.delete(name, if_match=if_match)

    def events(self) -> int:
        """How many messages the hub has taken since this state began."""
        return self._message_log.count()

    def connected(self, name: IdentityName) -> bool:
        """Whether it has a connection here; edgeHub itself always has."""
        return name == self._name or self.links.get(name) is not None

    def cut_off(self, name: IdentityName) -> bool:
        """Whether IoT Hub cannot reach it because the edge device is offline."""
        return not self.upstream.online and name.device_id == self._name.device_id

    def send_to_input(self, target: IdentityName, input_name: str, message: Message) -> None:
        """Puts a message into a module's input queue, as a route with the lowest priority would.

        Raises:
            HubError: 404, 413.
            StoreError: nothing was stored.
        """
        self.identities.get(target)
        _check_size(message)
        self._queue_input(target, input_name, message, LOWEST_PRIORITY, DEFAULT_TIME_TO_LIVE_SECONDS)

    def _route(self, source: str, sender: HubIdentity, message: Message) -> bool:
        """Whether any route wanted it. Call inside `store.write()`."""
        matching = [route for route in self._routes if route.matches(source, message.resolve)]
        for route in matching:
            self._deliver(route, sender, message)
        return bool(matching)

    def _deliver(self, route: Route, sender: HubIdentity, message: Message) -> None:
        if isinstance(route.sink, UpstreamSink):
            self._send_upstream(route, sender, message)
            return
        target = IdentityName(self._name.device_id, route.sink.module_id)
        if self.identities.find(target) is None:
            _log.warning("no such module to route to", route=route.name, module=route.sink.module_id)
            return
        self._queue_input(target, route.sink.input_name, message, route.priority, route.time_to_live_seconds)

    def _send_upstream(self, route: Route, sender: HubIdentity, message: Message) -> None:
        if sender.name.device_id != self._name.device_id:  # a device of its own, connected to the hub
            self._take(sender, message)
            return
        self.upstream.send(
            message.body,
            message.properties,
            _event(sender, message),
            priority=route.priority,
            time_to_live_seconds=route.time_to_live_seconds,
        )

    def _take(self, sender: HubIdentity, message: Message) -> None:
        """IoT Hub has it."""
        self._message_log.append(sender.name.device_id, message.body, message.properties, _event(sender, message))

    def _queue_input(
        self, target: IdentityName, input_name: str, message: Message, priority: int, time_to_live_seconds: int
    ) -> None:
        system = {name: value for name, value in message.system.items() if name != OUTPUT and name.startswith("$.")}
        for own, wire in ((SENDER_DEVICE, CONNECTION_DEVICE), (SENDER_MODULE, CONNECTION_MODULE)):
            if SENDER_DEVICE in message.system:  # of a twin change a module sees whose it is
                system.pop(wire)
                system |= {wire: message.system[own]} if own in message.system else {}
        bag = encode_properties(message.properties, system)
        topic = f"devices/{target.device_id}/modules/{target.module_id}/inputs/{quote(input_name)}/{bag}/"
        if len(topic) > MAX_TOPIC_BYTES:  # all of it is ASCII
            raise bad_request("the message's properties are too long for an input")
        self.inputs.put(target, topic, message.body, priority=priority, time_to_live_seconds=time_to_live_seconds)

    def _upstream_changed(self, online: bool) -> None:
        if online:
            self.twins.reconnect(self._name.device_id)
        self.links.changed()

    def _desired_changed(self, change: DesiredChange) -> None:
        if change.name == self._name:
            self._load_routes()
        link = self.links.get(change.name)
        if link is not None and link.subscribed(DESIRED_FILTER):
            body = json.dumps({**change.patch, "$version": change.version}).encode()
            link.send(f"$iothub/twin/PATCH/properties/desired/?$version={change.version}", body)

    def _disconnect(self, identity: HubIdentity, reason: str) -> None:
        link = self.links.get(identity.name)
        if link is not None:
            link.disconnect(reason)

    def _load_routes(self) -> None:
        self._routes = parse_routes(self.twins.at_edge(self._name).desired)

    def _validate(self, name: IdentityName, desired: Section) -> None:
        if name == self._name:
            try:
                parse_routes(desired)
            except ConfigurationError as error:
                raise bad_request(error.what, where=error.where, advice=error.advice) from error


def too_large() -> HubError:
    return HubError(413, "MessageTooLarge", f"a message has at most {MAX_BODY_BYTES} bytes", advice="send less in one")


def _check_size(message: Message) -> None:
    if len(message.body) > MAX_BODY_BYTES:
        raise too_large()


def _source(sender: IdentityName, message: Message) -> str:
    if not sender.module_id:
        return "/messages"
    output = message.system.get(OUTPUT)
    return f"/messages/modules/{sender.module_id}" + (f"/outputs/{output}" if output else "")


def _event(sender: HubIdentity, message: Message) -> dict[str, str]:
    """System properties of the event, under IoT Hub's names."""
    system = {SYSTEM_NAMES[name]: value for name, value in message.system.items() if name in SYSTEM_NAMES}
    system["iothub-connection-device-id"] = sender.name.device_id
    if sender.name.module_id:
        system["iothub-connection-module-id"] = sender.name.module_id
    system["iothub-connection-auth-generation-id"] = sender.generation_id
    scope, kind = "module" if sender.name.module_id else "device", "sas" if sender.authentication == SAS else "x509"
    system["iothub-connection-auth-method"] = json.dumps({"scope": scope, "type": kind, "issuer": "iothub"})
    system["iothub-message-source"] = "Telemetry"
    return system
