"""The system calls that are left to a process: a seccomp filter, in a few dozen instructions of classic BPF.

Rules, in this order:

1. another architecture than the one the numbers are of, or x86-64's x32 numbers: the kernel kills the process
2. a call on the list, with arguments as the list wants them: allowed
3. what libraries ask for by habit and do without, on the list of refusals: an error number
4. anything else: the kernel kills the process (SIGSYS)

Killing is the rule because whoever makes a forbidden call runs code that is not ours, and must not get a second try.
The refusals are calls that a library in good faith makes at any time (a late import looks for a file, a thread gives
itself a name): refusing them gives an attacker nothing, and a kill would turn a harmless habit into a lost call.

Own code and not libseccomp: that is a shared library which neither PyPI nor every image has. Format and semantics:
seccomp(2), linux/filter.h, linux/audit.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeclave.errors import EnclaveError

# linux/audit.h: the ELF machine number, 64-bit, little-endian
_AUDIT_ARCHITECTURE = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_X32_BIT = 0x4000_0000  # asm/unistd.h: numbers of the x32 ABI, which report the architecture of x86-64

# linux/seccomp.h
_SET_MODE_FILTER, _TO_ALL_THREADS = 1, 1
_KILL_PROCESS, _ERRNO, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16  # struct seccomp_data
_SECCOMP_SYSCALL = {"x86_64": 317, "aarch64": 277}

# linux/bpf_common.h: BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ, BPF_JGE, BPF_JSET, BPF_RET
_LOAD, _JUMP_EQUAL, _JUMP_NOT_LESS, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


@dataclass(frozen=True)
class Bits:
    """The lower 32 bits of an argument: `value` where `mask` has ones. `mask` zero: it must equal `value`."""

    argument: int
    mask: int
    value: int


@dataclass(frozen=True)
class Rules:
    """By numbers of one architecture: calls allowed, calls allowed under a condition, error numbers for others."""

    allowed: Sequence[int]
    conditional: Mapping[int, Bits]
    refused: Mapping[int, int]


def program(rules: Rules, machine: str) -> bytes:
    """The filter as an array of `struct sock_filter`.

    Raises:
        EnclaveError: `isolation-unavailable` on an architecture without numbers here.
    """
    if machine not in _AUDIT_ARCHITECTURE:
        raise _unavailable(f"there is no filter of system calls for {machine}")
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
    ]
    if machine == "x86_64":
        code += [(_JUMP_NOT_LESS, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL_PROCESS)]
    for number in rules.allowed:
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number, bits in rules.conditional.items():
        test = _test(bits)
        code += [
            (_JUMP_EQUAL, 0, len(test) + 2, number),
            *test,
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _KILL_PROCESS),
        ]
    for number, error in rules.refused.items():
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]
    code.append((_RETURN, 0, 0, _KILL_PROCESS))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _test(bits: Bits) -> list[_Instruction]:
    """Falls through when the argument is as it must be, and else jumps over the next instruction."""
    load = (_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * bits.argument)  # little-endian: the lower half comes first
    if bits.mask == 0:
        return [load, (_JUMP_EQUAL, 0, 1, bits.value)]
    if bits.value == 0:
        return [load, (_JUMP_ANY_BIT, 1, 0, bits.mask)]
    if bits.value == bits.mask and bits.mask.bit_count() == 1:
        return [load, (_JUMP_ANY_BIT, 0, 1, bits.mask)]
    raise ValueError(f"no instruction tests {bits}")


ISOLATION_ADVICE = "run it on Linux 4.14 or newer with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64"


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(filter_program: bytes, machine: str) -> None:
    """Puts every thread of this process under the filter, for good. Needs no_new_privs.

    Raises:
        EnclaveError: `isolation-unavailable`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    program_struct = _Program(len(filter_program) // 8, filter_program)
    result = libc.syscall(
        ctypes.c_long(_SECCOMP_SYSCALL[machine]),
        ctypes.c_uint(_SET_MODE_FILTER),
        ctypes.c_uint(_TO_ALL_THREADS),
        ctypes.byref(program_struct),
    )
    if result != 0:
        number = ctypes.get_errno() if result < 0 else errno.ESRCH  # positive: the thread that cannot follow
        raise _unavailable(f"the kernel takes no filter of system calls: {os.strerror(number)}")


def _unavailable(what: str) -> EnclaveError:
    return EnclaveError(
        "isolation-unavailable",
        what,
        advice=ISOLATION_ADVICE,
    )
