from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.simulator.amqp import frames
from edgeclave.simulator.amqp.codec import encode
from edgeclave.simulator.amqp.links import event
from edgeclave.simulator.amqp.log import LogEntry
from edgeclave.simulator.amqp.message import Message, read_message
from edgeclave.simulator.amqp.performatives import Attach, Close, Composite, Error, Flow, Open, Source, Target, Transfer
from edgeclave.simulator.amqp.types import AmqpError, Described, Symbol, ULong

HEADER_BYTES = 8


@pytest.mark.parametrize(
    "performative",
    [
        Open(container_id="me", hostname="127.0.0.1", max_frame_size=65536, channel_max=7, idle_time_out=1000),
        Attach(
            name="link",
            handle=3,
            role=True,
            source=Source(address="hub/ConsumerGroups/g/Partitions/0", filter={"a": "b"}),
            target=Target(address="here"),
        ),
        Flow(incoming_window=1, next_outgoing_id=2, outgoing_window=3, handle=0, delivery_count=5, link_credit=300),
        Transfer(handle=1, delivery_id=0, delivery_tag=b"\x00\x01", more=True),
        Close(error=Error(condition="amqp:not-found", description="no such node")),
        Close(),
    ],
    ids=lambda performative: type(performative).__name__,
)
def test_performatives_come_back_as_they_went(performative: Composite) -> None:
    packed = frames.pack(performative, 5, b"payload")
    assert int.from_bytes(packed[:4], "big") == len(packed)
    frame = frames.parse(frames.AMQP_FRAME, 5, packed[HEADER_BYTES:])
    assert frame.performative == performative
    assert frame.payload == b"payload"


def test_an_empty_frame_is_a_heartbeat() -> None:
    assert frames.parse(frames.AMQP_FRAME, 0, b"").performative is None


@pytest.mark.parametrize(
    ("body", "condition"),
    [
        pytest.param(encode(["not described"]), "amqp:decode-error", id="no descriptor"),
        pytest.param(encode(Described(ULong(0x99), [])), "amqp:not-implemented", id="unknown performative"),
        pytest.param(encode(Described(Symbol("x"), [])), "amqp:not-implemented", id="performative by another symbol"),
        pytest.param(encode(Described(ULong(0x10), [])), "amqp:decode-error", id="open without a container id"),
        pytest.param(encode(Described(ULong(0x10), [7])), "amqp:decode-error", id="open with a number as its id"),
        pytest.param(encode(Described(ULong(0x16), [None] * 9)), "amqp:decode-error", id="too many fields"),
        pytest.param(encode(Described(ULong(0x16), {})), "amqp:decode-error", id="a map in place of the list"),
    ],
)
def test_bad_frames_are_refused(body: bytes, condition: str) -> None:
    with pytest.raises(AmqpError) as caught:
        frames.parse(frames.AMQP_FRAME, 0, body)
    assert caught.value.condition == condition


@given(st.binary(max_size=300))
def test_garbage_in_place_of_a_frame_is_refused(body: bytes) -> None:
    with suppress(AmqpError):
        frames.parse(frames.AMQP_FRAME, 0, body)


@given(
    st.binary(max_size=2000),
    st.dictionaries(st.text(max_size=20), st.text(max_size=300), max_size=5),
    st.text(max_size=50),
)
def test_an_event_reads_back_whatever_its_sender_wrote(body: bytes, properties: dict[str, str], text: str) -> None:
    system = {"message-id": text, "content-type": text, "iothub-connection-device-id": text}
    message = read_message(event(LogEntry(7, "700", 1_700_000_000_123, body, properties, system)).to_bytes())
    assert message.data == body
    assert dict(message.application_properties) == properties
    assert message.properties["message_id"] == text
    assert message.annotations["x-opt-sequence-number"] == 7
    assert message.annotations["x-opt-offset"] == "700"
    assert message.annotations["iothub-connection-device-id"] == text


@given(st.binary(max_size=300))
def test_garbage_in_place_of_a_message_is_refused(payload: bytes) -> None:
    with suppress(AmqpError):
        read_message(payload)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(encode("no section"), id="no section"),
        pytest.param(encode(Described(ULong(0x75), "text")), id="data that is text"),
        pytest.param(encode(Described(ULong(0x74), [])), id="application properties that are a list"),
        pytest.param(encode(Described(ULong(0x77), 1)) * 2, id="two values"),
        pytest.param(encode(Described(ULong(0x79), 1)), id="unknown section"),
    ],
)
def test_malformed_messages_are_refused(payload: bytes) -> None:
    with pytest.raises(AmqpError):
        read_message(payload)


def test_a_reply_without_a_value_has_a_null_body() -> None:
    assert read_message(Message(properties={"correlation_id": "1"}).to_bytes()).value is None
