"""Readers with and without an epoch."""

from __future__ import annotations

import pytest

from edgeclave.simulator.amqp.receivers import MAX_READERS, Reader, Receivers, epoch_of
from edgeclave.simulator.amqp.types import AmqpError


@pytest.mark.parametrize(
    ("present", "new", "ended"),
    [
        pytest.param([None, None], None, [], id="without epochs many read"),
        pytest.param([None, None], 0, [None, None], id="an epoch ends those without"),
        pytest.param([1], 2, [1], id="a higher epoch ends a lower one"),
        pytest.param([1], 1, [1], id="the same epoch takes over"),
        pytest.param([2], 1, None, id="a lower epoch is refused"),
        pytest.param([2], None, None, id="without an epoch refused beside one"),
        pytest.param([None] * MAX_READERS, None, None, id="the sixth without an epoch"),
    ],
)
def test_who_may_read(present: list[int | None], new: int | None, ended: list[int | None] | None) -> None:
    receivers, gone = Receivers(), []

    def enter(epoch: int | None) -> None:
        receivers.check("group/0", epoch)
        reader = Reader("group/0", epoch, lambda _error: (gone.append(epoch), receivers.leave(reader)))  # type: ignore[func-returns-value, arg-type, return-value]
        receivers.enter(reader)

    for epoch in present:
        enter(epoch)
    if ended is None:
        with pytest.raises(AmqpError):
            enter(new)
        assert gone == []
    else:
        enter(new)
        assert gone == ended
    receivers.check("group/1", None)  # another partition is free


def test_who_left_is_in_nobodys_way() -> None:
    receivers = Receivers()
    reader = Reader("n", 5, lambda _error: None)
    receivers.enter(reader)
    receivers.leave(reader)
    receivers.leave(reader)
    receivers.check("n", None)


def test_the_epoch_is_a_number_among_the_links_properties() -> None:
    assert epoch_of({"com.microsoft:epoch": 3}) == 3
    assert epoch_of({"com.microsoft:epoch": "3"}) is None
    assert epoch_of({"com.microsoft:epoch": True}) is None
    assert epoch_of(None) is None
