"""The emulator's counters: one small file each, standing in for the NV memory of a TPM.

A counter obeys only commands of the trusted application whose counter it is, and only ever goes up. Yet whoever can
write the folder can put older files back: that is what hardware would prevent and what this only imitates.

A file holds the counter's value and the digest of the state it stands for, as `VALUE DIGEST` in text.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgeclave.enclave.emulated_counter import UNWRITTEN, CounterLink, Mark, read_command
from edgeclave.errors import EnclaveError

_CONTENT = re.compile(r"([0-9]{1,16}) ([0-9a-f]{64})\n", re.ASCII)


class EmulatedCounters:
    """All counters of one emulator.

    Args:
        folder: made with the first counter.
        root: gives the emulator's root key.
    """

    def __init__(self, folder: Path, root: Callable[[], bytes]) -> None:
        self._folder = folder
        self._root = root

    def run(self, command: bytes) -> bytes:
        """Obeys one command and returns the counter's answer; what it wrote is on the disk by then.

        Raises:
            EnclaveError: `counter-command-refused`, `counter-unavailable`, `emulator-keys-unusable`.
        """
        root = self._root()
        asked = read_command(root, command)
        path = self._folder / asked.counter.hex()
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                mark = _read(path)
                raised = asked.operation == "increment" and mark.value == asked.expected
                if raised:
                    mark = Mark(mark.value + 1, asked.digest)
                    _write(path, mark)
                    os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _unavailable(path, str(error.strerror)) from error
        return CounterLink(root, asked.counter).answer(command, mark, raised=raised)


def _read(path: Path) -> Mark:
    try:
        content = path.read_text("ascii", "replace")
    except FileNotFoundError:
        return UNWRITTEN
    found = _CONTENT.fullmatch(content)
    if found is None:
        raise _unavailable(path, "its file is damaged")
    return Mark(int(found[1]), bytes.fromhex(found[2]))


def _write(path: Path, mark: Mark) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False) as file:
        file.write(f"{mark.value} {mark.digest.hex()}\n")
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def _unavailable(path: Path, why: str) -> EnclaveError:
    return EnclaveError(
        "counter-unavailable",
        f"the emulator's counter cannot be used: {why}",
        where=str(path),
        advice="check the disk and the permissions; if the file is lost, restore the emulator's folder as a whole",
    )
