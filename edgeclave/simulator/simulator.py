"""The simulator as one object: all parts on one event loop, started and stopped together.

```
async with Simulator.running(Path(".edgeclave/sim")) as sim:
    environment = sim.environment("my_module")         # for IoTHubModuleClient.create_from_edge_environment()
    owner = sim.connection_string("service")           # for azure-iot-hub, with REQUESTS_CA_BUNDLE=sim.ca_file
    events = sim.connection_string("eventhub")         # for azure-eventhub, with connection_verify=sim.ca_file
```
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from edgeclave.edge.store import StoreError
from edgeclave.errors import ConfigurationError
from edgeclave.simulator.addresses import AMQPS_PORT
from edgeclave.simulator.amqp.commands import CommandNode
from edgeclave.simulator.amqp.server import EventHubEndpoint
from edgeclave.simulator.connect_proxy import ConnectProxy
from edgeclave.simulator.connection_strings import Kind, connection_string
from edgeclave.simulator.control import ControlSocket
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.edge_hub_report import EdgeHubReport
from edgeclave.simulator.iot_hub import IotHub
from edgeclave.simulator.log import logger
from edgeclave.simulator.message_log import StoredMessageLog
from edgeclave.simulator.mqtt.server import MqttServer
from edgeclave.simulator.pki import trust
from edgeclave.simulator.policies import POLICIES, Right, policy_key
from edgeclave.simulator.rest.server import RestServer
from edgeclave.simulator.runtime_file import Runtime, remove_runtime, write_runtime
from edgeclave.simulator.settings import DPS_HOST, Settings, with_usable_ports
from edgeclave.simulator.state import SimulatorState, module_environment
from edgeclave.simulator.workload.api import WorkloadApi
from edgeclave.simulator.workload.sockets import WorkloadSockets

HOUSEKEEPING_SECONDS = 60
MQTTS_PORT, HTTPS_PORT = 8883, 443  # azure-iot-device has no others
_log = logger("simulator")


class Simulator:
    """IoT Hub and IoT Edge on one state directory. Make it on the loop that it is to run on."""

    def __init__(self, state_directory: Path) -> None:
        """Opens the state and nothing else; `start` listens.

        Raises:
            ConfigurationError: `simulator-running`, or what is wrong with the state.
        """
        self.state = SimulatorState(state_directory)
        remove_runtime(self.state.directory)  # of one that was killed
        self.settings: Settings = with_usable_ports(self.state.store, self.state.settings)
        self.message_log = StoredMessageLog(self.state.store)
        self.hub = EdgeHub(
            self.state.store, self.state.identities, self.state.twins, self.message_log, self.settings.device_id
        )
        self.iot_hub = IotHub(self.hub, self.settings)
        registrations = self.iot_hub.registrations
        self._mqtt = MqttServer(self.hub, hub_host=self.settings.hub_host, registrations=registrations)
        self._rest = RestServer(self.iot_hub, self.settings, self._mqtt)
        self._events = EventHubEndpoint(
            self.message_log,
            hub_name=self.settings.hub_name,
            shared_access_keys={
                policy: policy_key(self.settings.owner_key, policy)
                for policy, rights in POLICIES.items()
                if Right.SERVICE_CONNECT in rights
            },
            commands=CommandNode(self.iot_hub.commands, self.settings),
        )
        self._proxy = ConnectProxy(self.state.identities, self.settings)
        self.workload = WorkloadApi(self.state.identities, self.state.twins, self.state.pki, self.settings)
        self._workload = WorkloadSockets(self.workload, self.state.directory)
        self.control = ControlSocket(self.hub, self.settings, self.state.directory)
        self._report = EdgeHubReport(self.hub, self.settings.device_id)
        self._housekeeping: asyncio.Task[None] | None = None
        self._device_context: ssl.SSLContext

    @classmethod
    @asynccontextmanager
    async def running(cls, state_directory: Path | str) -> AsyncIterator[Self]:
        """A started simulator that is stopped at the end. State stays, so the same directory can be run again."""
        simulator = cls(Path(state_directory))
        try:
            await simulator.start()
            yield simulator
        finally:
            await simulator.stop()

    @property
    def ca_file(self) -> str:
        """The root certificate that REST, MQTT and AMQP clients trust."""
        return str(self.state.pki.ca_file)

    @property
    def device_id(self) -> str:
        return self.settings.device_id

    def connection_string(self, kind: Kind, policy: str = "") -> str:
        """Of the owner, or of another policy. Raises HubError for one that is not there."""
        return connection_string(self.settings, kind, policy)

    def environment(self, module_id: str) -> dict[str, str]:
        """What a process needs to be this module; makes identity, data folder and workload socket if missing.

        Raises:
            HubError: the identity cannot be made.
        """
        identity = self.state.module(module_id)
        return module_environment(
            self.state.directory,
            self.settings,
            module_id=module_id,
            generation_id=identity.generation_id,
            address=identity.address,
        )

    async def start(self) -> None:
        """Listens everywhere; what other commands need is in the runtime file when this returns.

        Raises:
            ConfigurationError: `address-in-use`, `runtime-folder-unsafe`.
        """
        settings = self.settings
        names = [settings.gateway, settings.address, settings.hub_host, DPS_HOST]
        context = self.state.pki.server_context(names)
        self._device_context = device_context = self.state.pki.device_context(names)
        enrolments = self.iot_hub.enrolments
        enrolments.on_certificate.append(lambda certificate: trust(device_context, certificate))
        for enrolment in [*enrolments.all(is_group=False), *enrolments.all(is_group=True)]:
            for certificate in enrolment.certificates:
                trust(device_context, certificate)
        self.state.identities.on_created.append(self._workload.open)
        self.state.identities.on_deleted.append(self._workload.close)
        for identity in self.state.identities.modules(settings.device_id):
            self._workload.open(identity)
        self._report.start()  # before the first client
        try:
            await self._mqtt.start(settings.address, settings.ports.mqtt, device_context)
            await self._rest.start(settings.address, settings.ports.https, device_context)
            await self._proxy.start(settings.address, settings.ports.proxy)
        except OSError as error:
            raise ConfigurationError(
                "address-in-use",
                f"a port of the simulator cannot be opened: {error.strerror}",
                where=settings.address,
                advice="start it again: it then takes free ports",
            ) from error
        await self._events.start(settings.address, AMQPS_PORT, context)
        await self.control.start()
        self.hub.upstream.drain()
        self._housekeeping = asyncio.create_task(self._keep_house())
        write_runtime(self.state.directory, Runtime(os.getpid(), settings, self.ca_file))

    async def listen_as_edge_hub(self, address: str) -> str:
        """Listens at another address too, on the ports that SDKs take for granted, for modules in containers.

        Returns:
            What such modules have to do without because a port could not be had; empty when nothing.

        Raises:
            ConfigurationError: `address-in-use`, `address-not-here`.
        """
        try:
            await self._mqtt.start(address, MQTTS_PORT, self._device_context)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ConfigurationError(
                    "address-not-here",
                    "the containers' network is not on this machine: the engine runs in a virtual machine or rootless",
                    where=address,
                    advice="use an engine that runs on this machine as a system service, or run without --containers",
                ) from error
            raise ConfigurationError(
                "address-in-use",
                f"the port of edgeHub for containers cannot be opened: {error.strerror}",
                where=f"{address}:{MQTTS_PORT}",
                advice=f"stop what listens there or on 0.0.0.0:{MQTTS_PORT}: `sudo ss -tlnp sport = :{MQTTS_PORT}`",
            ) from error
        try:
            await self._rest.start(address, HTTPS_PORT, self._device_context)
        except OSError as error:
            return (
                f"modules cannot call each other's direct methods, nor use MQTT over WebSocket: "
                f"{address}:{HTTPS_PORT} cannot be opened ({error.strerror}); for ports below 1024 run as root"
                f" or set net.ipv4.ip_unprivileged_port_start={HTTPS_PORT}"
            )
        return ""

    async def stop(self) -> None:
        """Stops everything and closes the state."""
        remove_runtime(self.state.directory)
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeping
        await self.control.stop()
        await self._events.stop()
        await self._mqtt.stop()
        self._report.stop()
        await self._rest.stop()
        await self._proxy.stop()
        await self._workload.stop()
        self.state.close()

    async def _keep_house(self) -> None:
        while True:
            try:
                self.message_log.forget_old()
                self.iot_hub.commands.forget_expired()
                self.hub.inputs.forget_expired()
                self.hub.upstream.forget_expired()
                self.iot_hub.configurations.catch_up()
            except StoreError as error:
                _log.warning("cannot forget what is old; trying again later", reason=str(error))
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
