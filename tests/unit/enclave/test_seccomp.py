"""The filter as the kernel would run it, for both architectures, whichever this machine is."""

from __future__ import annotations

import errno
import os
import re
import struct
from pathlib import Path

import pytest

from edgeclave.enclave import system_calls
from edgeclave.enclave.seccomp import Rules, program
from edgeclave.errors import EnclaveError
from tests.fixtures import needs

X86_64, AARCH64 = 0xC000003E, 0xC00000B7
ARCHITECTURE = {"x86_64": X86_64, "aarch64": AARCH64}
KILL, ALLOW, EPERM = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM


def decide(code: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Interprets classic BPF over `struct seccomp_data`, as linux/filter.h defines both."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("=HBBI", code))
    position, accumulator = 0, 0
    while True:
        operation, if_true, if_false, operand = instructions[position]
        position += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, operand)
            case 0x15:
                position += if_true if accumulator == operand else if_false
            case 0x35:
                position += if_true if accumulator >= operand else if_false
            case 0x45:
                position += if_true if accumulator & operand else if_false
            case 0x06:
                return int(operand)
            case _:
                pytest.fail(f"no such instruction: {operation:#x}")


def number(name: str, machine: str) -> int:
    found = system_calls.number_of(name, machine)
    assert found is not None
    return found


@pytest.mark.parametrize("machine", system_calls.MACHINES)
def test_an_instance_may_do_what_it_needs_and_nothing_else(machine: str) -> None:
    code = program(system_calls.running(machine), machine)
    here = ARCHITECTURE[machine]
    assert decide(code, here, number("read", machine)) == ALLOW
    assert decide(code, here, number("openat", machine)) == EPERM
    assert decide(code, here, number("clone", machine), 0x10000) == KILL
    assert decide(code, here, number("clone3", machine)) == KILL
    for name in ("mmap", "mprotect"):
        assert decide(code, here, number(name, machine), 0, 4096, 3) == ALLOW
        assert decide(code, here, number(name, machine), 0, 4096, 7) == KILL
    assert decide(code, here, number("tgkill", machine), os.getpid()) == ALLOW
    assert decide(code, here, number("tgkill", machine), os.getppid()) == KILL
    rules = system_calls.running(machine)
    known = {*rules.allowed, *rules.conditional, *rules.refused}
    assert {decide(code, here, other) for other in range(1200) if other not in known} == {KILL}


@pytest.mark.parametrize("machine", system_calls.MACHINES)
def test_the_compiler_may_start_threads_and_no_process(machine: str) -> None:
    code = program(system_calls.compiling(machine), machine)
    here = ARCHITECTURE[machine]
    assert decide(code, here, number("clone", machine), 0x10000 | 0x100) == ALLOW
    assert decide(code, here, number("clone", machine), 0x100) == KILL
    assert decide(code, here, number("clone3", machine)) == 0x00050000 | errno.ENOSYS


@pytest.mark.parametrize("machine", system_calls.MACHINES)
def test_numbers_of_another_architecture_kill(machine: str) -> None:
    code = program(system_calls.running(machine), machine)
    for other in (AARCH64 if machine == "x86_64" else X86_64, 0x40000003, 0):
        assert decide(code, other, number("read", machine)) == KILL
    assert decide(code, ARCHITECTURE[machine], 0x40000000 | number("read", machine)) == KILL


def test_a_machine_without_numbers_is_refused() -> None:
    with pytest.raises(EnclaveError, match="riscv64"):
        program(Rules([], {}, {}), "riscv64")


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_the_numbers_are_those_of_the_kernel(machine: str, header: str) -> None:
    path = Path(header)
    if not path.exists():
        needs.missing(f"{header} is not here: install the Debian package linux-libc-dev", installable=True)
    text = path.read_text()
    known = {name: int(value) for name, value in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    aliases = {"newfstatat": "fstatat"} if machine == "aarch64" else {}
    for name in system_calls.NUMBERS:
        assert system_calls.number_of(name, machine) == known.get(aliases.get(name, name)), name
