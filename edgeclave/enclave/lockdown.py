"""What a process of the enclave gives up: the instance in two steps, before it sees a secret and before the trusted
application runs; the compiler at once.

This is the one place for it. A container, a service manager and the host's own policy may take away more; nothing here
depends on them, on being root or on not being root.

Landlock binds the thread that asks and those it starts later, the filter of system calls binds all: so Landlock comes
first, then the threads, then the filter, and then nothing of the kind can be done any more.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable

from edgeclave.enclave import landlock, seccomp, system_calls
from edgeclave.errors import EnclaveError

OPEN_FILES = 64
ADDRESS_SPACE_MARGIN_BYTES = 96 << 20
"""Beyond what the process maps at the start and twice the guest's memory (a memory that grows is copied once)."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def before_secrets(*, debuggable: bool = False) -> None:
    """No debugger or dump of an ordinary user reaches this process; it gains no privileges; few descriptors.

    `debuggable` leaves it open to debuggers; then the effective debug state must say so (PROTOCOL section 2).
    """
    _end_with_parent()
    if not debuggable:
        _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    os.umask(0o077)
    os.chdir("/")
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def before_running(guest_memory_bytes: int, start_threads: Callable[[], None]) -> int:
    """From here on: no file, socket, process, thread or new code in memory; address space ends a little above what the
    guest may use. Call it when all is loaded.

    `start_threads` starts those that must run beside the trusted application.

    Returns:
        The version of Landlock in force; 0 where the kernel has none.

    Raises:
        EnclaveError: `isolation-unavailable`.
    """
    machine = os.uname().machine
    program = seccomp.program(system_calls.running(machine), machine)
    address_space = _mapped_bytes() + 2 * guest_memory_bytes + ADDRESS_SPACE_MARGIN_BYTES
    landlock_version = _restrict_files()
    start_threads()
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_AS, address_space)
    seccomp.install(program, machine)
    return landlock_version


def before_compiling(parent: int, processor_seconds: int, data_bytes: int, code_bytes: int) -> None:
    """For the compiler, which sees no secret and reads code that nobody has looked into.

    Raises:
        EnclaveError: `isolation-unavailable`; `parent-gone`.
    """
    before_secrets()
    if os.getppid() != parent:
        raise EnclaveError("parent-gone", "the enclave that asked for this has ended")
    machine = os.uname().machine
    program = seccomp.program(system_calls.compiling(machine), machine)
    _restrict_files()
    _limit(resource.RLIMIT_DATA, data_bytes)
    _limit(resource.RLIMIT_FSIZE, code_bytes)
    _limit(resource.RLIMIT_CPU, processor_seconds)
    seccomp.install(program, machine)


def _restrict_files() -> int:
    try:
        return landlock.restrict()
    except OSError as error:
        raise EnclaveError(
            "isolation-unavailable",
            f"the kernel offers Landlock and then refuses it: {error.strerror}",
            advice="check what else confines this process (a container's seccomp profile answers EPERM)",
        ) from error


def _end_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


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
