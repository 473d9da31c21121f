"""What `$cbs` and `$management` answer (AMQP claims-based security and management, as Event Hubs speaks them)."""

from __future__ import annotations

from edgeclave.simulator.amqp.access import SAS_TOKEN_TYPE
from edgeclave.simulator.amqp.log import MessageLog
from edgeclave.simulator.amqp.message import Message
from edgeclave.simulator.amqp.types import UNAUTHORIZED, AmqpError, Array, Int, Long, Timestamp

EVENT_HUB, PARTITION = "com.microsoft:eventhub", "com.microsoft:partition"
_OK, _BAD_REQUEST, _UNAUTHORIZED, _NOT_FOUND = 200, 400, 401, 404
_ACCEPTED = 202


def reply(request: Message, status: int, description: str, value: object = None, condition: str = "") -> Message:
    """A reply under both spellings of the status that the SDK looks for."""
    outcome: dict[str, object] = {
        "status-code": Int(status),
        "statusCode": Int(status),
        "status-description": description,
        "statusDescription": description,
    }
    if condition:
        outcome["errorCondition"] = condition
    return Message(
        properties={"correlation_id": request.properties.get("message_id")},
        application_properties=outcome,
        value=value,
    )


def token_of(request: Message) -> tuple[str, str]:
    """(token, audience) of a put-token request; raises AmqpError `amqp:unauthorized-access` for anything else."""
    fields = request.application_properties
    audience = fields.get("name")
    if fields.get("operation") != "put-token" or fields.get("type") != SAS_TOKEN_TYPE:
        raise AmqpError(UNAUTHORIZED, f"only put-token with {SAS_TOKEN_TYPE} is known")
    if not isinstance(request.value, str) or not isinstance(audience, str):
        raise AmqpError(UNAUTHORIZED, "a put-token request holds a token and the name it is for")
    return request.value, audience


def token_accepted(request: Message) -> Message:
    return reply(request, _ACCEPTED, "Accepted")


def token_refused(request: Message, error: AmqpError) -> Message:
    return reply(request, _UNAUTHORIZED, error.description, condition=error.condition)


def answer(request: Message, log: MessageLog, hub_name: str) -> Message:
    """READ of the event hub or of one of its partitions."""
    fields = request.application_properties
    name, partition = fields.get("name"), fields.get("partition")
    if fields.get("operation") != "READ":
        return reply(request, _BAD_REQUEST, "only READ is known")
    if not isinstance(name, str) or name.lower() != hub_name.lower():
        return reply(request, _NOT_FOUND, "there is no such event hub", condition="amqp:not-found")
    if fields.get("type") == EVENT_HUB:
        return reply(request, _OK, "OK", _hub(log, hub_name))
    if fields.get("type") != PARTITION:
        return reply(request, _BAD_REQUEST, "the type is neither event hub nor partition")
    if partition not in log.partitions:
        return reply(request, _NOT_FOUND, "there is no such partition", condition="amqp:not-found")
    return reply(request, _OK, "OK", _partition(log, hub_name, str(partition)))


def _hub(log: MessageLog, hub_name: str) -> dict[str, object]:
    return {
        "name": hub_name,
        "type": EVENT_HUB,
        "created_at": Timestamp(0),
        "partition_count": Int(len(log.partitions)),
        "partition_ids": Array(list(log.partitions)),
    }


def _partition(log: MessageLog, hub_name: str, partition: str) -> dict[str, object]:
    first, last, enqueued_ms = log.bounds(partition)
    newest = log.read(partition, last - 1, 1) if last >= first else []
    return {
        "name": hub_name,
        "type": PARTITION,
        "partition": partition,
        "begin_sequence_number": Long(first),
        "last_enqueued_sequence_number": Long(last),
        "last_enqueued_offset": newest[0].offset if newest else "-1",
        "last_enqueued_time_utc": Timestamp(enqueued_ms),
        "is_partition_empty": not newest,
    }
