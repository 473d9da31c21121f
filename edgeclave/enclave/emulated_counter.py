"""The emulator's counter as seen from inside: it stands in for the NV counter of a TPM, and says so in evidence.

The host carries every command and answer, as it would to a TPM, and can do no more than withhold them: both bear an
HMAC under a key that only the device and this trusted application's slot have, as in an HMAC session of a TPM. A
command is fresh by its nonce; an increment names the value it starts from, so that repeating one does nothing.

    command = dCBOR [body, HMAC(key, "edgeclave/emulated-counter/command" | body)]
    body    = dCBOR [counter, "read" or "increment", expected value, digest of the new state, nonce]
    answer  = dCBOR [body, HMAC(key, "edgeclave/emulated-counter/answer" | body)]
    body    = dCBOR [SHA-256(command), value now, digest now, whether this command raised it]

>>> root, counter, state = bytes(32), bytes([7]) * 32, bytes([8]) * 32
>>> link = CounterLink(root, counter)
>>> command = link.command("increment", 4, state)
>>> link.read_answer(command, link.answer(command, Mark(5, state), raised=True)) == (Mark(5, state), True)
True
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edgeclave.cose import SignatureError, dcbor, load_dcbor, sha256
from edgeclave.enclave.hardware import CounterError, Exchange
from edgeclave.enclave.messages import MAX_COUNTER_MESSAGE_BYTES
from edgeclave.evidence.eat import EpochSource

Operation = Literal["read", "increment"]
_ID_BYTES = _NONCE_BYTES = _DIGEST_BYTES = 32
_COMMAND, _ANSWER = b"edgeclave/emulated-counter/command", b"edgeclave/emulated-counter/answer"


class Mark(NamedTuple):
    """Where a counter stands: its value, and the SHA-256 of the state it stands for."""

    value: int
    digest: bytes


UNWRITTEN = Mark(0, bytes(_DIGEST_BYTES))


@dataclass(frozen=True)
class Command:
    """`counter` names one of the device's counters (32 bytes); `expected` is what an increment starts from."""

    counter: bytes
    operation: Operation
    expected: int
    digest: bytes


class EmulatedCounter:
    """Implements `Counter` for one slot."""

    source: EpochSource = "emulated"

    def __init__(self, root: bytes, counter: bytes, exchange: Exchange) -> None:
        self._link = CounterLink(root, counter)
        self._exchange = exchange

    def read(self) -> tuple[int, bytes]:
        command = self._link.command("read", 0, UNWRITTEN.digest)
        return self._link.read_answer(command, self._exchange(command, None))[0]

    def increment(self, expected: int, keep: bytes) -> None:
        command = self._link.command("increment", expected, sha256(keep))
        mark, raised = self._link.read_answer(command, self._exchange(command, keep))
        if not raised:
            raise CounterError(
                "instance-superseded",
                f"the counter stands at {mark.value}, not at {expected}: another instance has taken this slot over",
                advice="run one instance of a slot at a time; it is started again from the newest state",
            )


class CounterLink:
    """What device and enclave share about one counter: how its commands and answers are made and checked."""

    def __init__(self, root: bytes, counter: bytes) -> None:
        info = dcbor(["edgeclave/emulated-counter/1", counter])
        self._key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(root)
        self._counter = counter

    def command(self, operation: Operation, expected: int, digest: bytes) -> bytes:
        body = dcbor([self._counter, operation, expected, digest, os.urandom(_NONCE_BYTES)])
        return dcbor([body, self._tag(_COMMAND, body)])

    def answer(self, command: bytes, mark: Mark, *, raised: bool) -> bytes:
        body = dcbor([sha256(command), *mark, raised])
        return dcbor([body, self._tag(_ANSWER, body)])

    def read_answer(self, command: bytes, answer: bytes) -> tuple[Mark, bool]:
        """Where the counter stands now, and whether this command raised it.

        Raises:
            CounterError: `counter-answer-refused`.
        """
        try:
            body, tag = _parts(answer)
            authentic = hmac.compare_digest(tag, self._tag(_ANSWER, body))
            answered, value, digest, raised = load_dcbor(body)
        except (SignatureError, ValueError, TypeError):
            authentic = False
        if not authentic or answered != sha256(command):
            raise CounterError(
                "counter-answer-refused",
                "what came back is not the counter's answer to this command",
                advice="the host altered, mixed up or repeated answers of the counter; nothing is done without it",
            )
        return Mark(value, digest), raised

    def made(self, body: bytes, tag: bytes) -> bool:
        """Whether a command was made by whoever has the key."""
        return hmac.compare_digest(tag, self._tag(_COMMAND, body))

    def _tag(self, label: bytes, body: bytes) -> bytes:
        return hmac.digest(self._key, label + body, "sha256")


def read_command(root: bytes, command: bytes) -> Command:
    """What the device does first.

    Raises:
        CounterError: `counter-command-refused`.
    """
    try:
        body, tag = _parts(command)
        counter, operation, expected, digest, _ = load_dcbor(body)
    except (SignatureError, ValueError, TypeError) as error:
        raise _refused("it is not one") from error
    if not isinstance(counter, bytes) or len(counter) != _ID_BYTES:
        raise _refused("it names no counter")
    if not CounterLink(root, counter).made(body, tag):
        raise _refused("it does not come from the trusted application whose counter it names")
    return Command(counter, operation, expected, digest)


def _parts(message: bytes) -> tuple[bytes, bytes]:
    if len(message) > MAX_COUNTER_MESSAGE_BYTES:
        raise ValueError("too long")
    parts: Any = load_dcbor(message)
    body, tag = parts
    if not isinstance(body, bytes) or not isinstance(tag, bytes):
        raise TypeError("not two byte strings")
    return body, tag


def _refused(why: str) -> CounterError:
    return CounterError(
        "counter-command-refused",
        f"the counter does not obey this command: {why}",
        advice="an enclave of another device was started here, or the pipe to it was tampered with",
    )
