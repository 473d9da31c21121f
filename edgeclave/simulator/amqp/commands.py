"""`/messages/devicebound`: where services send messages for devices, as azure-iot-hub does it.

Its tokens are IoT Hub's, not Event Hubs': signed with the decoded key of a policy that has the right ServiceConnect.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from edgeclave.edge.store import StoreError
from edgeclave.simulator.amqp.access import node_path
from edgeclave.simulator.amqp.message import Message
from edgeclave.simulator.amqp.types import (
    INVALID_FIELD,
    MESSAGE_TOO_LARGE,
    NOT_FOUND,
    RESOURCE_LIMIT,
    UNAUTHORIZED,
    AmqpError,
)
from edgeclave.simulator.cloud_to_device import CloudToDevice, Command
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.policies import Right, policy_key, require
from edgeclave.simulator.sas import SharedAccessSignature
from edgeclave.simulator.settings import Settings

NODE = "messages/devicebound"
MAX_MESSAGE_BYTES = 128 * 1024  # 64 KB of body, with its properties
Settled = Callable[[AmqpError | None], None]
_CONDITIONS = {403: RESOURCE_LIMIT, 404: NOT_FOUND, 413: MESSAGE_TOO_LARGE}
_SYSTEM = {
    "message_id": "$.mid",
    "correlation_id": "$.cid",
    "user_id": "$.uid",
    "content_type": "$.ct",
    "content_encoding": "$.ce",
}


class CommandNode:
    """Takes tokens and messages; says when a message is on disk."""

    def __init__(self, commands: CloudToDevice, settings: Settings) -> None:
        self._commands = commands
        self._owner_key = settings.owner_key
        self._hosts: Collection[str] = (settings.address, settings.hub_host)

    def check_token(self, token: str) -> int:
        """Until when (seconds since 1970) the token opens this node.

        Raises:
            AmqpError: `amqp:unauthorized-access`.
        """
        try:
            signature = SharedAccessSignature.parse(token)
            signature.check([policy_key(self._owner_key, signature.policy)], hosts=self._hosts)
            require(signature.policy, Right.SERVICE_CONNECT)
        except HubError as error:
            raise AmqpError(UNAUTHORIZED, error.what) from error
        return signature.expiry

    def accept(self, message: Message, settled: Settled) -> None:
        """Queues a message and calls `settled` once it is on disk, or with why it is not."""
        try:
            self._commands.send(_command(message))
        except HubError as error:
            settled(AmqpError(_CONDITIONS.get(error.status, INVALID_FIELD), f"{error.name}: {error}"))
            return
        except StoreError as error:
            settled(AmqpError("amqp:internal-error", error.what))
            return

        def stored(error: StoreError | None) -> None:
            settled(None if error is None else AmqpError("amqp:internal-error", error.what))

        self._commands.after_commit(stored)


def _command(message: Message) -> Command:
    """Raises HubError 400 for what no device can be sent."""
    match node_path(str(message.properties.get("to", ""))):
        case ["devices", _, "messages", "devicebound"]:
            device_id = str(message.properties["to"]).strip("/").split("/")[1]
        case _:
            raise HubError(400, "ArgumentInvalid", "`to` must be /devices/<device id>/messages/devicebound")
    if message.data is None:
        raise HubError(
            400, "ArgumentInvalid", "the body is not text or bytes", where="body", advice="send JSON as text"
        )
    expiry = message.properties.get("absolute_expiry_time")
    return Command(
        device_id,
        message.data,
        {_text(name): _text(value) for name, value in message.application_properties.items()},
        {short: _text(message.properties[name]) for name, short in _SYSTEM.items() if name in message.properties},
        int(expiry) / 1000 if isinstance(expiry, int) and expiry else None,
    )


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
