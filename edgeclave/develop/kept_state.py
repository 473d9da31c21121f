"""What an emulated device keeps of one application between runs: one file, replaced whole and durably."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from edgeclave.develop.development_keys import RecipientSetUsed
from edgeclave.errors import ConfigurationError, EnclaveError
from edgeclave.platforms.base import CallOutcome, Released, SealedResult, Started


class _Content(msgspec.Struct, frozen=True):
    state: bytes | None = None
    pending: bytes | None = None
    shown: dict[str, bytes] = {}
    shown_open: bytes | None = None
    recipients: dict[str, RecipientSetUsed] = {}


class KeptState:
    """The kept state of one slot, as ta_runner's store is for all of its slots. Made by `open_state`.

    Implements `Keeper`: what it is asked to keep where there is a counter.
    """

    def __init__(self, path: Path, content: _Content) -> None:
        self.path = path
        self._content = content

    @property
    def state(self) -> bytes | None:
        """The sealed state last stored; None before the first start."""
        return self._content.state

    @property
    def pending(self) -> bytes | None:
        """The sealed state that was to be kept last and whose commit was never heard of."""
        return self._content.pending

    @property
    def shown(self) -> Mapping[str, bytes]:
        """The last result of each output of the last instance."""
        return self._content.shown

    @property
    def shown_open(self) -> bytes | None:
        """The open record of the last instance."""
        return self._content.shown_open

    @property
    def recipients(self) -> Mapping[str, RecipientSetUsed]:
        """The recipient set that the last instance was given for each output."""
        return self._content.recipients

    def begin(self, started: Started, recipients: Mapping[str, RecipientSetUsed]) -> None:
        """A new instance runs, and has no results yet. Raises EnclaveError `state-not-written`."""
        self._store(_Content(started.state, None, {}, started.open_record, dict(recipients)))

    def record(self, outcome: CallOutcome) -> None:
        """A call has ended. Raises EnclaveError `state-not-written`."""
        if outcome.state is not None:
            self._advance(outcome.state, outcome.results)

    def keep(self, state: bytes) -> None:
        """This state is in force once the counter has moved. Raises EnclaveError `state-not-written`."""
        self._store(msgspec.structs.replace(self._content, pending=state))

    def take_up(self, released: Released) -> None:
        """The pending state is in force, and its commit let this out. Raises EnclaveError `state-not-written`."""
        pending = self._content.pending
        if pending is None:
            return
        if released.open_record is not None:
            self._store(_Content(pending, None, {}, released.open_record, self._content.recipients))
        else:
            self._advance(pending, released.results)

    def _advance(self, state: bytes, results: Iterable[SealedResult]) -> None:
        shown = {**self._content.shown, **{result.output: result.sealed for result in results}}
        self._store(msgspec.structs.replace(self._content, state=state, pending=None, shown=shown))

    def _store(self, content: _Content) -> None:
        with (
            _writing(self.path),
            tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=f".{self.path.name}.", delete=False) as file,
        ):
            file.write(msgspec.msgpack.encode(content))
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(self.path)
        self._content = content


@contextlib.contextmanager
def open_state(path: Path) -> Iterator[KeptState]:
    """Reads the state, for one run at a time: two instances of one state would fork its history.

    Raises:
        ConfigurationError: `state-in-use`.
        EnclaveError: `state-unreadable`, `state-not-written`.
    """
    with _writing(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                "state-in-use",
                "this trusted application runs already with the same state",
                where=str(path),
                advice="end the other run first, or name another folder with --state",
            ) from error
        yield KeptState(path, _read(path))
    finally:
        os.close(lock)


def _read(path: Path) -> _Content:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=_Content)
    except FileNotFoundError:
        return _Content()
    except (OSError, msgspec.DecodeError) as error:
        raise EnclaveError(
            "state-unreadable",
            f"what was kept of the last run cannot be read: {error}",
            where=str(path),
            advice="remove this file to begin anew",
        ) from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnclaveError(
            "state-not-written",
            f"the state cannot be kept: {error.strerror}",
            where=str(path),
            advice="see that there is room and permission to write, or name another folder with --state",
        ) from error
