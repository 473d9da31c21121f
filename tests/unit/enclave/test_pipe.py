from __future__ import annotations

import contextlib
import os
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.enclave.messages import Caller, CallOutcome, CallRequest, StartRequest
from edgeclave.enclave.pipe import MAX_FRAME_BYTES, Pipe, decode_reply, decode_request, encode_frame
from edgeclave.errors import EnclaveError

CALL = CallRequest(id="1", method="echo", payload="{}", host_time=1)


def received(data: bytes) -> object:
    """What the enclave makes of these bytes and the end of the pipe."""
    reading, writing = os.pipe()
    try:
        os.write(writing, data)
        os.close(writing)
        return Pipe(reading, -1).receive_request()
    finally:
        os.close(reading)


def test_a_request_arrives_as_it_was_sent() -> None:
    assert received(encode_frame(CALL)) == CALL


def test_a_large_request_arrives_in_pieces() -> None:
    request = StartRequest(slot="s", host_time=0, state=os.urandom(3 << 20))
    reading, writing = os.pipe()
    sender = threading.Thread(target=Pipe(-1, writing).send, args=(request,))
    sender.start()
    assert Pipe(reading, -1).receive_request() == request
    sender.join()


def test_the_end_of_the_pipe_between_frames_is_no_error() -> None:
    assert received(b"") is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\0\0\0", id="a cut length"),
        pytest.param(b"\0\0\0\0", id="an empty frame"),
        pytest.param((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), id="over the limit"),
        pytest.param(b"\xff\xff\xff\xff", id="4 GiB"),
        pytest.param(b"\0\0\0\x05abc", id="a cut frame"),
        pytest.param(b"\0\0\0\x03abc", id="not MessagePack"),
        pytest.param(b"\0\0\0\x01\x80", id="an empty map"),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(EnclaveError, match="bad-frame"):
        received(data)


def altered(**changes: object) -> bytes:
    fields = {**msgspec.to_builtins(CALL, builtin_types=(bytes,)), **changes}
    return msgspec.msgpack.encode({name: value for name, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(altered(type="shutdown"), id="an unknown request"),
        pytest.param(altered(extra=1), id="an unknown field"),
        pytest.param(altered(method=...), id="a missing field"),
        pytest.param(altered(payload=b"{}"), id="bytes for text"),
        pytest.param(altered(payload={"a": 1}), id="an object for text"),
        pytest.param(altered(host_time=-1), id="a time before 1970"),
        pytest.param(altered(host_time=1 << 60), id="a time no double holds"),
        pytest.param(altered(deadline_ms=0), id="no time at all"),
        pytest.param(altered(id="x" * 129), id="a long call id"),
        pytest.param(altered(caller={"assurance": "authenticated", "name": ""}), id="an assurance only TEEs can give"),
        pytest.param(b"\x81" * 5000, id="deep nesting"),
        pytest.param(encode_frame(CALL)[4:] + b"\0", id="bytes after the request"),
    ],
)
def test_what_is_no_request_is_refused(content: bytes) -> None:
    with pytest.raises(EnclaveError, match="bad-frame"):
        decode_request(content)


def test_the_base_of_the_table_is_a_request() -> None:
    assert decode_request(altered(caller={"assurance": "none", "name": "x"})) == msgspec.structs.replace(
        CALL, caller=Caller(name="x")
    )


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_do_more_than_refuse(data: bytes) -> None:
    for decode in (decode_request, decode_reply):
        with contextlib.suppress(EnclaveError):
            decode(data)


def test_a_frame_over_the_limit_is_not_sent() -> None:
    with pytest.raises(EnclaveError, match="frame-too-large"):
        encode_frame(CallOutcome(reply="x" * MAX_FRAME_BYTES))
