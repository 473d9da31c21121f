"""The hub's built-in Event Hub-compatible endpoint.

```
endpoint = EventHubEndpoint(log, hub_name="hub", shared_access_keys={"iothubowner": key})
await endpoint.start("127.9.9.1", 5671, ssl_context)
```
azure-eventhub connects to port 5671 whatever the connection string says, so each simulator listens there on a loopback
address of its own.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Mapping

from edgeclave.errors import ConfigurationError
from edgeclave.simulator.amqp.access import SharedAccessKeys
from edgeclave.simulator.amqp.commands import CommandNode
from edgeclave.simulator.amqp.connection import Connection
from edgeclave.simulator.amqp.log import MessageLog
from edgeclave.simulator.amqp.receivers import Receivers

AMQPS_PORT = 5671
MAX_CONNECTIONS = 128
GOODBYE_SECONDS = 1  # for clients to say close in return


class EventHubEndpoint:
    """Any number of readers, each from where it wants; plaintext when started without an SSL context."""

    def __init__(
        self,
        log: MessageLog,
        *,
        hub_name: str,
        shared_access_keys: Mapping[str, str],
        commands: CommandNode | None = None,
    ) -> None:
        """`shared_access_keys` by policy; `commands` takes messages to devices on the same port."""
        self._log = log
        self._commands = commands
        self._receivers = Receivers()
        self._access = SharedAccessKeys(hub_name, shared_access_keys)
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, asyncio.Task[None] | None] = {}

    async def start(self, host: str, port: int = AMQPS_PORT, ssl_context: ssl.SSLContext | None = None) -> int:
        """Returns the port; raises ConfigurationError `address-in-use` or `address-not-usable`."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, ssl=ssl_context)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise ConfigurationError(
                "address-in-use" if taken else "address-not-usable",
                f"the Event Hub endpoint cannot listen on {host}:{port}",
                where="simulator",
                advice="stop the other simulator, or choose another state directory" if taken else str(error.strerror),
            ) from error
        listening: int = self._server.sockets[0].getsockname()[1]
        return listening

    async def stop(self) -> None:
        """Says close to every client and waits until they are gone."""
        if self._server:
            self._server.close()
        tasks = [task for task in self._connections.values() if task]
        for connection in list(self._connections):
            connection.stop()
        if tasks:
            await asyncio.wait(tasks, timeout=GOODBYE_SECONDS)
            for connection in list(self._connections):
                connection.abort()  # uamqp answers only when its user calls it
            await asyncio.wait(tasks, timeout=GOODBYE_SECONDS)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        connection = Connection(reader, writer, self._log, self._access, self._receivers, self._commands)
        self._connections[connection] = asyncio.current_task()
        try:
            await connection.run()
        finally:
            del self._connections[connection]
