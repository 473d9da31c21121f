"""Which system calls the running enclave and the compiler may make.

Numbers: asm/unistd_64.h of x86-64 and asm-generic/unistd.h, which AArch64 uses; a test compares them with the headers.
None: AArch64 has no such call.
"""

from __future__ import annotations

import errno
import os

from edgeclave.enclave.seccomp import Bits, Rules

NUMBERS: dict[str, tuple[int, int | None]] = {
    "access": (21, None),
    "brk": (12, 214),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "fcntl": (72, 25),
    "fstat": (5, 80),
    "futex": (202, 98),
    "getcwd": (79, 17),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "ioctl": (16, 29),
    "lseek": (8, 62),
    "lstat": (6, None),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "open": (2, None),
    "openat": (257, 56),
    "prctl": (157, 167),
    "read": (0, 63),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "set_robust_list": (273, 99),
    "sigaltstack": (131, 132),
    "stat": (4, None),
    "statx": (332, 291),
    "sysinfo": (99, 179),
    "tgkill": (234, 131),
    "uname": (63, 160),
    "write": (1, 64),
    "writev": (20, 66),
}
MACHINES = ("x86_64", "aarch64")

# The pipe, the log and memory; locks between the two threads; time, randomness, and an orderly or a sudden end.
_RUNNING = (
    *("read", "write", "futex", "clock_nanosleep", "munmap", "madvise", "mremap", "brk", "getrandom"),
    *("clock_gettime", "clock_getres", "gettimeofday", "nanosleep", "restart_syscall", "sched_yield"),
    *("rt_sigprocmask", "rt_sigaction", "rt_sigreturn", "sigaltstack", "getpid", "gettid"),
    *("close", "fstat", "writev", "exit", "exit_group"),
)
# Compiling is spread over threads; what it made is native code, which wasmtime maps before it hands it out.
_COMPILING = (*_RUNNING, "mmap", "mprotect", "membarrier", "rseq", "set_robust_list", "sched_getaffinity")

_PROT_EXEC = 4  # linux/mman.h
_CLONE_THREAD = 0x0001_0000  # linux/sched.h

# Looking at files (late imports, tracebacks), terminals, thread names, the size of the machine: all can do without.
_REFUSED = dict.fromkeys(
    (
        *("open", "openat", "stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2"),
        *("readlink", "readlinkat", "getcwd", "ioctl", "fcntl", "lseek", "prctl", "sched_getaffinity"),
        *("sysinfo", "uname"),
    ),
    errno.EPERM,
)


def running(machine: str) -> Rules:
    """For a running instance: no new code in memory, no file, no process, no thread; signals to itself only."""
    conditional = {
        "mmap": Bits(2, _PROT_EXEC, 0),
        "mprotect": Bits(2, _PROT_EXEC, 0),
        "tgkill": Bits(0, 0, os.getpid()),
    }
    return _rules(machine, _RUNNING, conditional, _REFUSED)


def compiling(machine: str) -> Rules:
    """For the compiler: memory and threads, also no file and no process.

    The flags of clone3 lie in memory that no filter can see, so it is said to be missing: libc then uses clone.
    """
    conditional = {"clone": Bits(0, _CLONE_THREAD, _CLONE_THREAD), "tgkill": Bits(0, 0, os.getpid())}
    refused = {name: error for name, error in _REFUSED.items() if name not in _COMPILING}
    return _rules(machine, _COMPILING, conditional, {**refused, "clone3": errno.ENOSYS})


def _rules(machine: str, allowed: tuple[str, ...], conditional: dict[str, Bits], refused: dict[str, int]) -> Rules:
    return Rules(
        [number for name in allowed if (number := number_of(name, machine)) is not None],
        {number: bits for name, bits in conditional.items() if (number := number_of(name, machine)) is not None},
        {number: error for name, error in refused.items() if (number := number_of(name, machine)) is not None},
    )


def number_of(name: str, machine: str) -> int | None:
    return NUMBERS[name][machine == "aarch64"]
