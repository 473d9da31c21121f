from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from edgeclave.edge.store import StoreError, listen_address, open_database, state_directory, transaction
from edgeclave.errors import ConfigurationError

TABLE = "CREATE TABLE t (x BLOB)"


def rows(database: sqlite3.Connection) -> list[bytes]:
    return [row["x"] for row in database.execute("SELECT x FROM t")]


def test_opened_durable_and_private(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    database = open_database(path, [TABLE])
    assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert database.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    with transaction(database):
        database.execute("INSERT INTO t VALUES (1)")
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    database = open_database(tmp_path / "s", [TABLE])

    def fails_half_way() -> None:
        with transaction(database):
            database.execute("INSERT INTO t VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails_half_way()
    assert rows(database) == []
    assert not database.in_transaction


def test_migrations_run_once_each_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "s"
    open_database(path, [TABLE]).close()
    database = open_database(path, [TABLE, "ALTER TABLE t ADD COLUMN y"])
    assert database.execute("PRAGMA user_version").fetchone()[0] == 2
    database.close()
    with pytest.raises(StoreError) as refused:
        open_database(path, [TABLE])
    assert refused.value.code == "store-from-newer-release"


def test_failed_migration_leaves_nothing_half_done(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(StoreError):
        open_database(path, ["CREATE TABLE a (x); CREATE TABLE a (x)"])
    assert open_database(path, [TABLE]).execute("SELECT count(*) FROM t").fetchone()[0] == 0


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"not a database at all" * 300, id="another file"),
        pytest.param(lambda data: data[:4096] + bytes(len(data) - 4096), id="pages zeroed"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut off"),
    ],
)
def test_damaged_database_is_refused(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "s"
    database = open_database(path, [TABLE])
    with transaction(database):
        database.executemany("INSERT INTO t VALUES (?)", [(bytes(1000),)] * 100)
    database.close()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(StoreError) as refused:
        open_database(path, [TABLE])
    assert refused.value.code == "store-corrupt"
    assert refused.value.where == str(path)
    assert refused.value.advice


def test_full_disk_has_its_own_error_and_loses_nothing(tmp_path: Path) -> None:
    database = open_database(tmp_path / "s", [TABLE])
    with transaction(database):
        database.execute("INSERT INTO t VALUES (x'01')")
    database.execute(f"PRAGMA max_page_count={database.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(StoreError) as refused, transaction(database):
        database.execute("INSERT INTO t VALUES (zeroblob(1000000))")
    assert refused.value.code == "disk-full"
    assert rows(database) == [b"\x01"]


def test_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECLAVE_STATE", str(tmp_path / "a" / "b"))
    assert state_directory() == tmp_path / "a" / "b"
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGECLAVE_STATE", str(tmp_path / "file" / "c"))
    with pytest.raises(ConfigurationError) as refused:
        state_directory()
    assert refused.value.code == "state-directory-unusable"


def test_listen_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGECLAVE_LISTEN", raising=False)
    assert listen_address() == "0.0.0.0"
    monkeypatch.setenv("EDGECLAVE_LISTEN", "127.1.2.3")
    assert listen_address() == "127.1.2.3"
