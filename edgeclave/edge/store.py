"""Opening a module's SQLite database so that what was committed survives a power cut.

Rules that all code on such a database keeps:

1. One connection, used on the event loop's thread only.
2. Every write stands in `with transaction(connection):`. The connection is in autocommit mode, so sqlite3's own
   `with connection:` would not open a transaction.
3. No `await` inside a transaction: another task would write into it.

>>> import tempfile
>>> database = open_database(Path(tempfile.mkdtemp()) / "store.sqlite", ["CREATE TABLE t (x)"])
>>> with transaction(database):
...     _ = database.execute("INSERT INTO t VALUES (1)")
>>> database.execute("SELECT x FROM t").fetchone()["x"]
1
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgeclave.errors import ConfigurationError, EdgeclaveError

DEFAULT_STATE_DIRECTORY = "/var/lib/edgeclave"
DEFAULT_LISTEN_ADDRESS = "0.0.0.0"  # noqa: S104 - in its container a module has a network of its own
BUSY_TIMEOUT_MS = 5000
_CODES = {
    sqlite3.SQLITE_FULL: ("disk-full", "the disk is full", "free space in the state directory; nothing was lost"),
    sqlite3.SQLITE_CORRUPT: ("store-corrupt", "the database is damaged", "restore it or move it away, then restart"),
    sqlite3.SQLITE_NOTADB: ("store-corrupt", "the file is not a database", "restore it or move it away, then restart"),
    sqlite3.SQLITE_READONLY: ("store-read-only", "the database cannot be written", "check owner and mode of the file"),
    sqlite3.SQLITE_CANTOPEN: ("store-unavailable", "the database cannot be opened", "check the state directory"),
    sqlite3.SQLITE_BUSY: ("store-busy", "another process holds the database", "run one process of a module at a time"),
}


class StoreError(EdgeclaveError):
    """Something could not be stored; nothing of that transaction was."""


def state_directory() -> Path:
    """Where this module keeps its state: EDGECLAVE_STATE or /var/lib/edgeclave; made if missing, mode 0700.

    Raises:
        ConfigurationError: `state-directory-unusable`.
    """
    path = Path(os.environ.get("EDGECLAVE_STATE") or DEFAULT_STATE_DIRECTORY)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            "state-directory-unusable",
            f"the state directory cannot be made: {error.strerror}",
            where=str(path),
            advice="bind a writable folder there, or name another one in EDGECLAVE_STATE",
        ) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(
            "state-directory-unusable",
            "the state directory cannot be written",
            where=str(path),
            advice=f"give it to user {os.geteuid()}, or name another one in EDGECLAVE_STATE",
        )
    return path


def listen_address() -> str:
    """The address this module's servers listen on: EDGECLAVE_LISTEN or all of its container's."""
    return os.environ.get("EDGECLAVE_LISTEN") or DEFAULT_LISTEN_ADDRESS


def open_database(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    """Opens or makes a database (mode 0600, WAL, synchronous=FULL) and checks its integrity.

    Args:
        path: the file; its folder must be there.
        migrations: SQL scripts, oldest first and never changed once released; each is applied once, in order.

    Raises:
        StoreError: `store-corrupt`, `store-from-newer-release`, `store-unavailable`, `store-busy`, `disk-full`.
    """
    try:
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise StoreError(
            "store-unavailable", f"the database cannot be opened: {error.strerror}", where=str(path)
        ) from error
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
    connection.row_factory = sqlite3.Row
    try:
        _prepare(connection, path, migrations)
    except sqlite3.Error as error:
        connection.close()
        raise store_error(error, where=str(path)) from error
    except StoreError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise StoreError(
            "store-corrupt",
            f"the database is damaged: {str(problem)[:200]}",
            where=str(path),
            advice="restore it or move it away, then restart",
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise StoreError(
            "store-from-newer-release",
            f"the database has form {version}, this release knows up to {len(migrations)}",
            where=str(path),
            advice="run the release that wrote it",
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script};\nPRAGMA user_version={number};\nCOMMIT;")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing, on disk when the block is left. Do not await inside.

    Raises:
        StoreError: what SQLite could not do, `disk-full` for one; nothing of the block was stored.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise store_error(error) from error


def store_error(error: sqlite3.Error, *, where: str = "") -> StoreError:
    """Names what SQLite complained about."""
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    code, what, advice = _CODES.get(primary, ("store-failed", f"the database failed: {error}", ""))
    return StoreError(code, what, where=where, advice=advice)
