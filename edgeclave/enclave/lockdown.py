"""What the enclave process gives up, in two steps: before it sees a secret, and before the trusted application runs.

This is the one place for it. A container, a service manager and the host's own policy may take away more; nothing here
depends on them.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

OPEN_FILES = 64
ADDRESS_SPACE_MARGIN_BYTES = 96 << 20
"""Beyond what the process maps at the start and twice the guest's memory (a memory that grows is copied once)."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def before_secrets(*, debuggable: bool = False) -> None:
    """No debugger or dump of an ordinary user reaches this process; it gains no privileges; few descriptors.

    `debuggable` leaves it open to debuggers; then the effective debug state must say so (PROTOCOL section 2).
    """
    end_with_parent()
    if not debuggable:
        _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    os.umask(0o077)
    os.chdir("/")
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def before_running(guest_memory_bytes: int) -> None:
    """No file grows, no process or thread starts, and address space ends a little above what the guest may use.

    Call it when all threads run and all files are loaded.
    """
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_AS, _mapped_bytes() + 2 * guest_memory_bytes + ADDRESS_SPACE_MARGIN_BYTES)


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _mapped_bytes() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123  (no pathlib for one word)
        return int(file.read().split()[0]) * resource.getpagesize()


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
