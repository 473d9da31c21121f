"""The pipe between host and enclave: frames of a 4-byte big-endian length and that many bytes of MessagePack.

The length is checked before anything is read, and the content is decoded straight into its types. The first frame that
is not one ends the enclave: nobody who speaks to it properly ever sends one.

>>> from edgeclave.enclave.messages import StopRequest
>>> reading, writing = os.pipe()
>>> sender, receiver = Pipe(-1, writing), Pipe(reading, -1)
>>> sender.send(StopRequest())
>>> receiver.receive_request()
StopRequest()
"""

from __future__ import annotations

import os

import msgspec

from edgeclave.enclave.messages import Count, Counted, Recovered, Released, Reply, Request, TakenUp
from edgeclave.errors import EnclaveError

MAX_FRAME_BYTES = 32 << 20
"""Larger than any honest frame: two states with a call's answer in each, and 32 shown results."""
LENGTH_BYTES = 4
_CHUNK_BYTES = 1 << 20  # what is read at once, so that a length alone allocates nothing

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode_frame(message: Request | Reply) -> bytes:
    """Raises EnclaveError `frame-too-large`."""
    content = _encoder.encode(message)
    if len(content) > MAX_FRAME_BYTES:
        raise EnclaveError("frame-too-large", f"a frame of {len(content)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def frame_length(prefix: bytes) -> int:
    """Raises EnclaveError `bad-frame` when the length is zero or over the limit."""
    length = int.from_bytes(prefix, "big")
    if not 0 < length <= MAX_FRAME_BYTES:
        raise EnclaveError("bad-frame", f"a frame claims {length} bytes, the limit is {MAX_FRAME_BYTES}")
    return length


def decode_request(content: bytes | bytearray) -> Request:
    """Raises EnclaveError `bad-frame`."""
    try:
        return _request_decoder.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EnclaveError("bad-frame", f"not a request: {str(error)[:200]}") from None


def decode_reply(content: bytes | bytearray) -> Reply:
    """Raises EnclaveError `bad-frame`."""
    try:
        return _reply_decoder.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EnclaveError("bad-frame", f"not a reply: {str(error)[:200]}") from None


class Pipe:
    """The enclave's end, blocking: one thread runs everything."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing

    def receive_request(self) -> Request | None:
        """The next request; None when the host closed the pipe between two frames.

        Raises:
            EnclaveError: `bad-frame`.
        """
        prefix = self._read(LENGTH_BYTES)
        if not prefix:
            return None
        if len(prefix) < LENGTH_BYTES:
            raise EnclaveError("bad-frame", "the pipe ended inside a frame")
        length = frame_length(prefix)
        content = self._read(length)
        if len(content) < length:
            raise EnclaveError("bad-frame", "the pipe ended inside a frame")
        return decode_request(content)

    def send(self, message: Request | Reply) -> None:
        """Raises EnclaveError `frame-too-large`; BrokenPipeError when the host is gone."""
        frame = memoryview(encode_frame(message))
        while frame:
            frame = frame[os.write(self._writing, frame) :]

    def exchange(self, command: bytes, keep: bytes | None) -> bytes:
        """An `Exchange` with the counter, in the middle of a request.

        Raises:
            EnclaveError: `bad-frame`, `frame-too-large`.
        """
        self.send(Count(command=command, keep=keep))
        answer = self.receive_request()
        if not isinstance(answer, Counted):
            raise EnclaveError("bad-frame", "the host did not answer with what the counter says")
        return answer.answer

    def take_up(self, released: Released) -> None:
        """A `TakeUp`, in the middle of a start.

        Raises:
            EnclaveError: `bad-frame`, `frame-too-large`.
        """
        self.send(Recovered(released=released))
        if not isinstance(self.receive_request(), TakenUp):
            raise EnclaveError("bad-frame", "the host did not take up what was recovered")

    def _read(self, wanted: int) -> bytes:
        data = os.read(self._reading, min(wanted, _CHUNK_BYTES))
        if len(data) == wanted or not data:
            return data
        parts = [data]
        missing = wanted - len(data)
        while missing and (data := os.read(self._reading, min(missing, _CHUNK_BYTES))):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)
