"""IoT Hub's service side beside edgeHub: configurations, messages to devices, the provisioning service."""

from __future__ import annotations

from edgeclave.simulator.cloud_to_device import CloudToDevice
from edgeclave.simulator.configurations import Configurations
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.provisioning.enrolments import Enrolments
from edgeclave.simulator.provisioning.registration import Registrations
from edgeclave.simulator.settings import ID_SCOPE, Settings


class IotHub:
    """The parts that services see, on one edge hub's state."""

    def __init__(self, hub: EdgeHub, settings: Settings) -> None:
        self.edge = hub
        self.configurations = Configurations(hub)
        self.commands = CloudToDevice(hub)
        self.enrolments = Enrolments(hub.store)
        self.registrations = Registrations(hub, self.enrolments, hub_host=settings.hub_host, id_scope=ID_SCOPE)
