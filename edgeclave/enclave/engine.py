"""The wasmtime engine: one configuration for compiling and running, small enough for a limit on address space.

The default configuration maps 4 GiB per memory and handles traps by signals; neither works inside SGX, under a limit on
address space, or under a strict seccomp filter. This one was measured to run everywhere (one TA, one way).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from wasmtime import Config, Engine

from edgeclave.cose import dcbor, sha256
from edgeclave.enclave.files import library_digest

MEMORY_GROWTH_BYTES = 16 << 20
"""Address space kept for a memory to grow into: without it each growth of 64 KiB would copy the whole memory."""

CONFIGURATION: dict[str, bool | int] = {
    "epoch_interruption": True,  # deadlines
    "memory_reservation": 0,
    "memory_guard_size": 0,
    "memory_reservation_for_growth": MEMORY_GROWTH_BYTES,
    "memory_may_move": True,
    "memory_init_cow": True,  # the first contents of a memory are mapped from the file of compiled code, and so shared
    "signals_based_traps": False,
    "wasm_threads": False,
}


def make_engine(*, parallel_compilation: bool = False, debuggable: bool = False) -> Engine:
    """Compiling in parallel makes the same code; running needs no threads and under a filter could not have any.

    `debuggable`: compiled code tells a debugger its source lines and variables, and is not optimised. It must not be
    mixed with the code of the other configuration, which `fingerprint` stands for.
    """
    config = Config()
    for name, value in CONFIGURATION.items():
        setattr(config, name, value)
    config.parallel_compilation = parallel_compilation
    if debuggable:
        config.debug_info = True
        config.cranelift_opt_level = "none"
        config.memory_init_cow = False  # code that was not loaded from a file would need one made when it runs
    return Engine(config)


@functools.lru_cache(maxsize=1)
def fingerprint() -> bytes:
    """SHA-256 over all that decides what compiled code means: configuration, library, target, CPU."""
    return sha256(dcbor([CONFIGURATION, library_digest(), os.uname().machine, _cpu_features()]))


def _cpu_features() -> list[str]:
    """The features of the first processor, as Linux names them (`flags` on x86-64, `Features` on AArch64)."""
    with Path("/proc/cpuinfo").open() as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return sorted(value.split())
    return []
