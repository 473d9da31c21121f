"""Who reads which partition in which consumer group: an epoch makes a reader exclusive (Event Hubs, event receivers).

1. A reader with an epoch ends every other reader of its group and partition with a lower epoch, the same one, or none.
2. While a reader has an epoch, one with a lower epoch, or with none, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeclave.simulator.amqp.types import STOLEN, AmqpError

EPOCH = "com.microsoft:epoch"
MAX_READERS = 5  # without an epoch, per group and partition; Event Hubs' limit


@dataclass(eq=False)
class Reader:
    """One attached link; `end` tells its client why it ends."""

    node: str
    epoch: int | None
    end: Callable[[AmqpError], None]


@dataclass
class Receivers:
    """All readers of one endpoint."""

    _readers: dict[str, list[Reader]] = field(default_factory=dict)

    def check(self, node: str, epoch: int | None) -> None:
        """Raises AmqpError `amqp:link:stolen` for who comes second, `amqp:resource-limit-exceeded` for the sixth."""
        present = self._readers.get(node, [])
        highest = max((reader.epoch for reader in present if reader.epoch is not None), default=None)
        if highest is not None and (epoch is None or epoch < highest):
            raise AmqpError(STOLEN, f"a reader with the epoch {highest} has this partition")
        if epoch is None and len(present) >= MAX_READERS:
            raise AmqpError(
                "amqp:resource-limit-exceeded", f"at most {MAX_READERS} readers of a partition in a consumer group"
            )

    def enter(self, reader: Reader) -> None:
        """Adds one that `check` let in, and ends those it takes over from."""
        present = self._readers.get(reader.node, [])
        if reader.epoch is not None:
            for other in list(present):  # each leaves as it ends
                other.end(AmqpError(STOLEN, f"a reader with the epoch {reader.epoch} took this partition"))
        self._readers.setdefault(reader.node, []).append(reader)

    def leave(self, reader: Reader) -> None:
        present = self._readers.get(reader.node, [])
        if reader in present:
            present.remove(reader)
        if not present:
            self._readers.pop(reader.node, None)


def epoch_of(properties: Mapping[Any, Any] | None) -> int | None:
    """The epoch among a link's properties."""
    value = (properties or {}).get(EPOCH)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None
