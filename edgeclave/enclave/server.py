"""Answers the host, one request at a time, until it says stop or closes the pipe; or compiles for a later start.

What is refused is answered and the next request is awaited; a frame that is none, or a request that cannot come now,
ends the process with a log line, because the other end is broken or hostile.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeclave.enclave.hardware import CounterError
from edgeclave.enclave.instance import Instance
from edgeclave.enclave.messages import (
    BeaconRequest,
    CallRequest,
    Compiled,
    CompileRequest,
    Counted,
    EvidenceReply,
    EvidenceRequest,
    RecipientsRequest,
    Refused,
    Reply,
    Request,
    Started,
    StartRequest,
    Stopped,
    StopRequest,
    TakenUp,
)
from edgeclave.enclave.pipe import Pipe
from edgeclave.errors import EdgeclaveError, EnclaveError

Start = Callable[[StartRequest], tuple[Instance, Started]]
CompileAhead = Callable[[], Compiled]


def serve(pipe: Pipe, start: Start, compile_ahead: CompileAhead) -> None:
    """Returns when the host is done.

    Raises:
        EnclaveError: `bad-frame`.
        CounterError: after it was answered; nobody knows what is committed until the next start.
        EdgeclaveError: whatever kept the instance from starting or the code from being made, after it was answered.
    """
    request = pipe.receive_request()
    if request is None:
        return
    if not isinstance(request, StartRequest | CompileRequest):
        raise EnclaveError("bad-frame", "the first request must be `start` or `compile`")
    try:
        if isinstance(request, CompileRequest):
            pipe.send(compile_ahead())
            return
        instance, started = start(request)
    except EdgeclaveError as error:
        pipe.send(refused(error))
        raise
    pipe.send(started)
    while (request := pipe.receive_request()) is not None:
        try:
            reply = _answer(instance, request)
        except EdgeclaveError as error:
            if error.code == "bad-frame":
                raise
            reply = refused(error)
            if isinstance(error, CounterError):
                pipe.send(reply)
                raise
        pipe.send(reply)
        if isinstance(request, StopRequest):
            return


def refused(error: EdgeclaveError) -> Refused:
    return Refused(code=error.code, what=error.what, where=error.where, advice=error.advice)


def _answer(instance: Instance, request: Request) -> Reply:
    match request:
        case CallRequest():
            return instance.call(request)
        case EvidenceRequest():
            return EvidenceReply(evidence=instance.evidence(request.nonce, request.host_time))
        case RecipientsRequest():
            return instance.set_recipients(request.output, request.set)
        case BeaconRequest():
            return instance.beacon(request.beacon, request.host_time)
        case StopRequest():
            return Stopped(close_record=instance.close())
        case StartRequest() | CompileRequest():
            raise EnclaveError("bad-frame", "this instance was started already")
        case Counted() | TakenUp():
            raise EnclaveError("bad-frame", "it was not asked anything")
