from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgeclave.edge.hub import HubOffline
from edgeclave.edge.outbox import MAX_MESSAGE_BYTES, OUTBOX_SCHEMA, Outbox
from edgeclave.edge.store import StoreError, open_database, transaction
from tests.fixtures.waiting import eventually


@pytest.fixture
def database(tmp_path: Path) -> sqlite3.Connection:
    return open_database(tmp_path / "outbox.sqlite", [OUTBOX_SCHEMA])


def put(database: sqlite3.Connection, outbox: Outbox, *bodies: bytes) -> None:
    with transaction(database):
        for body in bodies:
            outbox.put("out", body, "text/plain", {"edgeclave-slot": "a"})


class Hub:
    """Takes messages unless it is offline; `refuse` lists bodies it fails on once."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.online = True
        self.refuse: set[bytes] = set()
        self.under_way = 0
        self.most_under_way = 0

    async def send(self, output: str, body: bytes, content_type: str, properties: Mapping[str, str]) -> None:
        assert (output, content_type, properties) == ("out", "text/plain", {"edgeclave-slot": "a"})
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0.001)
        self.under_way -= 1
        if not self.online:
            raise HubOffline("no hub")
        if body in self.refuse:
            self.refuse.remove(body)
            raise HubOffline("lost")
        self.taken.append(body)


@asynccontextmanager
async def draining(outbox: Outbox, hub: Hub, in_flight: int = 4) -> AsyncIterator[None]:
    task = asyncio.create_task(outbox.drain(hub.send, in_flight=in_flight))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_oldest_first_and_gone_when_acknowledged(database: sqlite3.Connection) -> None:
    outbox, hub = Outbox(database), Hub()
    bodies = [str(number).encode() for number in range(50)]
    put(database, outbox, *bodies)
    assert (len(outbox), outbox.size_bytes) == (50, sum(map(len, bodies)))
    async with draining(outbox, hub):
        await eventually(lambda: len(outbox) == 0)
        put(database, outbox, b"later")
        await eventually(lambda: len(outbox) == 0)
    assert hub.taken == [*bodies, b"later"]
    assert hub.most_under_way == 4
    assert outbox.size_bytes == 0


async def test_waits_while_offline(database: sqlite3.Connection) -> None:
    outbox, hub = Outbox(database), Hub()
    hub.online = False
    put(database, outbox, b"1", b"2")
    async with draining(outbox, hub):
        await asyncio.sleep(0.1)
        assert len(outbox) == 2
        hub.online = True
        await eventually(lambda: len(outbox) == 0)
    assert hub.taken == [b"1", b"2"]


async def test_one_failure_repeats_only_what_was_not_acknowledged(database: sqlite3.Connection) -> None:
    outbox, hub = Outbox(database), Hub()
    hub.refuse = {b"2"}
    put(database, outbox, b"1", b"2", b"3", b"4", b"5")
    async with draining(outbox, hub, in_flight=2):
        await eventually(lambda: len(outbox) == 0)
    assert sorted(hub.taken) == [b"1", b"2", b"3", b"4", b"5"]


async def test_cancelled_drain_keeps_what_was_not_acknowledged(database: sqlite3.Connection) -> None:
    outbox = Outbox(database)
    put(database, outbox, b"1", b"2", b"3")

    async def only_first(output: str, body: bytes, content_type: str, properties: Mapping[str, str]) -> None:
        if body != b"1":
            await asyncio.Event().wait()

    task = asyncio.create_task(outbox.drain(only_first, in_flight=2))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [row["body"] for row in database.execute("SELECT body FROM outbox ORDER BY id")] == [b"2", b"3"]


async def test_rolled_back_message_is_not_sent(database: sqlite3.Connection) -> None:
    outbox, hub = Outbox(database), Hub()
    async with draining(outbox, hub):
        with pytest.raises(StoreError):
            put(database, outbox, b"never", bytes(MAX_MESSAGE_BYTES + 1))
        put(database, outbox, b"sent")
        await eventually(lambda: hub.taken)
    assert hub.taken == [b"sent"]


@pytest.mark.parametrize(
    ("limits", "body", "code"),
    [
        pytest.param({"max_messages": 1}, b"x", "outbox-full", id="too many messages"),
        pytest.param({"max_bytes": 10}, b"x" * 6, "outbox-full", id="too many bytes"),
        pytest.param({}, bytes(MAX_MESSAGE_BYTES + 1), "message-too-large", id="larger than the hub takes"),
    ],
)
async def test_limits_refuse_and_drop_nothing(
    database: sqlite3.Connection, limits: dict[str, int], body: bytes, code: str
) -> None:
    outbox = Outbox(database, **limits)
    put(database, outbox, b"first")
    with pytest.raises(StoreError) as refused:
        put(database, outbox, body)
    assert refused.value.code == code
    assert len(outbox) == 1


def test_killed_process_loses_nothing_it_has_put(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from edgeclave.edge.outbox import OUTBOX_SCHEMA, Outbox
        from edgeclave.edge.store import open_database, transaction
        database = open_database(Path(sys.argv[1]), [OUTBOX_SCHEMA])
        outbox = Outbox(database)
        for number in range(100):
            with transaction(database):
                outbox.put("out", str(number).encode(), "text/plain", {})
        database.execute("BEGIN")
        outbox.put("out", b"not committed", "text/plain", {})
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    path = tmp_path / "outbox.sqlite"
    process = subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=30)
    assert process.returncode == -signal.SIGKILL
    database = open_database(path, [OUTBOX_SCHEMA])
    assert [row["body"] for row in database.execute("SELECT body FROM outbox ORDER BY id")] == [
        str(number).encode() for number in range(100)
    ]
