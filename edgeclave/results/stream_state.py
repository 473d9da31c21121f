"""What the head rules remember: plain, bounded, and the same after a trip through storage."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from edgeclave.errors import ResultError
from edgeclave.results.records import Heads
from edgeclave.wire import Count, Digest, Label

MAX_CHAIN = 256
"""Instances of a slot whose open records are remembered; older ones by name only."""
MAX_FORGOTTEN = 1024
"""Older instances of a slot remembered by name, so that their messages are not taken for new ones."""
MAX_WAITING = 64
"""Instances that are not admitted, close records and instances without open record: each at most so many."""
MAX_SLOTS = 16
MAX_RECENT = 64
"""Last results of an output whose digests are remembered, to tell a duplicate from an equivocation."""
MAX_LOST = 16
NamedHeads = dict[str, tuple[int, bytes]]
NOTHING = (0, b"")
"""Where an instance stands on an output on which it emitted nothing."""
_FORMAT = 1


class ResultLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The place of a verified result: its sequence number, its digest and that of the one before."""

    instance_id: Digest
    output: Label
    sequence: Count
    previous: Digest
    digest: Digest


class OpenLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verified open record; `counted` says that the evidence names a counter as the source of its epoch."""

    instance_id: Digest
    slot: Label
    epoch: Count
    counted: bool
    predecessor: Digest | None
    heads: Heads
    digest: Digest


class CloseLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verified close record."""

    instance_id: Digest
    slot: Label
    epoch: Count
    heads: Heads
    digest: Digest


class Admitted(msgspec.Struct, forbid_unknown_fields=True):
    """An instance in the chain of its slot; `by_person`: it does not go on from the one before it."""

    opened: OpenLink
    closed: CloseLink | None = None
    by_person: bool = False


class Position(msgspec.Struct, forbid_unknown_fields=True):
    """The head of one stream.

    Sequence 0 with the digest of the open record: nothing yet by this instance. `ahead` maps instances to the highest
    sequence seen and held; `lost` are (instance, first, last) that a person gave up; `stopped` is the code that stopped
    the stream.
    """

    instance_id: Digest
    sequence: Count
    digest: Digest
    recent: list[tuple[Digest, Count, Digest]] = []
    ahead: dict[Digest, Count] = {}
    lost: list[tuple[Digest, Count, Count]] = []
    stopped: str = ""


class Slot(msgspec.Struct, forbid_unknown_fields=True):
    """Instances in the order in which they were admitted, and a head per output."""

    chain: list[Admitted]
    outputs: dict[Label, Position] = {}
    forgotten: list[Digest] = []
    stopped: str = ""

    def index(self, instance_id: bytes) -> int | None:
        for index in range(len(self.chain) - 1, -1, -1):
            if self.chain[index].opened.instance_id == instance_id:
                return index
        return None

    def head(self, output: str) -> Position:
        """The head of an output, made at the newest instance if nothing was ever named on it."""
        if output not in self.outputs:
            self.outputs[output] = position_at(self.chain[-1].opened)
        return self.outputs[output]

    def ends(self, index: int, output: str) -> tuple[int, bytes] | None:
        """Where the next instance says that this one ended on an output; None while there is no such instance."""
        if index + 1 >= len(self.chain) or self.chain[index + 1].by_person:
            return None
        return self.chain[index + 1].opened.heads.get(output, NOTHING)


class Unadmitted(msgspec.Struct, forbid_unknown_fields=True):
    """`code` says what it waits for, or what was reported about it."""

    opened: OpenLink
    code: str


class StreamState(msgspec.Struct, forbid_unknown_fields=True):
    """All slots of one product on one platform.

    `unplaced` maps instances that are not admitted to the highest sequence held per output.
    """

    slots: dict[Label, Slot] = {}
    unadmitted: dict[Digest, Unadmitted] = {}
    early_closes: dict[Digest, CloseLink] = {}
    unplaced: dict[Digest, dict[Label, Count]] = {}
    outputs: list[Label] = []
    format: Annotated[int, Meta(ge=_FORMAT, le=_FORMAT)] = _FORMAT

    def find(self, instance_id: bytes) -> tuple[str, Slot, int] | None:
        """Slot name, slot and place in its chain of an admitted instance."""
        for name, slot in self.slots.items():
            index = slot.index(instance_id)
            if index is not None:
                return name, slot, index
        return None

    def is_forgotten(self, instance_id: bytes) -> bool:
        return any(instance_id in slot.forgotten for slot in self.slots.values())


def position_at(opened: OpenLink) -> Position:
    return Position(opened.instance_id, 0, opened.digest)


def encode_state(state: StreamState) -> bytes:
    return msgspec.msgpack.encode(state)


def decode_state(data: bytes) -> StreamState:
    """Raises ResultError `bad-heads`."""
    try:
        return msgspec.msgpack.decode(data, type=StreamState)
    except msgspec.DecodeError as error:
        raise ResultError(
            "bad-heads",
            f"the stored heads are not usable: {error}",
            advice="restore the reader's database from a backup; starting without heads would accept a rollback",
        ) from error
