"""Landlock: no file, TCP port, abstract socket or other process's signal, where the kernel has it (5.13 and newer).

The filter of system calls forbids these too. This second lock asks about the object and not about the number of the
call, so a call that a later kernel adds is covered as well. Source: linux/landlock.h, landlock(7).
"""

from __future__ import annotations

import ctypes
import os

# linux/landlock.h. How many access rights to files each version of the interface knows.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_BIND_AND_CONNECT_TCP = 0b11  # from version 4
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # from version 6
_ASK_VERSION = 1
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on all architectures


class _Ruleset(ctypes.Structure):
    _fields_ = (("file_system", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def version() -> int:
    """Version of the kernel's interface; 0 when there is no Landlock or it was left off."""
    return max(0, _syscall(_CREATE_RULESET, None, 0, _ASK_VERSION))


def restrict() -> int:
    """Takes everything from this thread and those it starts later. Needs no_new_privs. Returns the version used."""
    known = version()
    if known == 0:
        return 0
    # A right that the kernel does not know makes the call fail, so a kernel newer than this file gets the last list.
    rules = _Ruleset((1 << _FILE_RIGHTS[min(known, max(_FILE_RIGHTS))]) - 1, 0, 0)
    if known >= 4:
        rules.network = _NET_BIND_AND_CONNECT_TCP
    if known >= 6:
        rules.scoped = _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS
    size = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}.get(known, ctypes.sizeof(rules))
    ruleset = _checked(_syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0))
    try:
        _checked(_syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return known


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    converted = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return int(libc.syscall(ctypes.c_long(number), *converted))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return result
