"""Compiling in a process of its own, with caps: wasmtime takes seconds and hundreds of MB for a Python application.

The compiler reads what a stranger wrote and is large. So it runs where there is nothing to take: a new program, which
never had this process's secrets in its memory and gets no descriptor but the Wasm and the file for its code.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass

from edgeclave.enclave import memory_files
from edgeclave.enclave.seccomp import ISOLATION_ADVICE
from edgeclave.errors import EnclaveError, PackageError

MAX_ERROR_BYTES = 2000
EXIT_REFUSED = 2
"""The compiler's exit code for Wasm it refused; the reason is in its output."""
EXIT_OVER_LIMIT = 3
EXIT_NOT_ISOLATED = 4
"""It could not be confined and compiled nothing; the reason is in its output."""


@dataclass(frozen=True)
class CompileLimits:
    """What one compilation may use. A Python trusted application takes 12 s of one fast core and 700 MB."""

    seconds: int = 300
    processor_seconds: int = 300
    data_bytes: int = 2 << 30


DEFAULT_LIMITS = CompileLimits()
_OVER_A_LIMIT = (-signal.SIGXCPU, -signal.SIGABRT, EXIT_OVER_LIMIT)  # Rust aborts without memory


def compile_to(code: int, wasm: bytes, limits: CompileLimits) -> None:
    """Writes compiled code to the descriptor `code`.

    Raises:
        PackageError: `wasm-refused`, `compile-limit`.
        EnclaveError: `isolation-unavailable`, `compiler-failed`.
    """
    source = memory_files.create("wasm")
    try:
        memory_files.write_all(source, wasm)
        exit_code = _run(source, code, limits)
    finally:
        os.close(source)
    if exit_code == 0:
        return
    if exit_code in (EXIT_REFUSED, EXIT_NOT_ISOLATED):
        why = os.pread(code, MAX_ERROR_BYTES, 0).decode(errors="replace")
        if exit_code == EXIT_NOT_ISOLATED:
            raise EnclaveError(
                "isolation-unavailable", f"the compiler cannot be confined: {why}", advice=ISOLATION_ADVICE
            )
        raise PackageError("wasm-refused", f"this is not a component that can run: {why}", where="Wasm")
    if exit_code == -signal.SIGKILL:
        raise PackageError(
            "compile-limit",
            f"compiling was ended by the system: it took more than {limits.processor_seconds} s, or more memory than"
            " this device or its container has left",
            where="Wasm",
            advice="give it more memory (a Python trusted application takes 700 MiB to compile, once), or make the"
            " code smaller",
        )
    if exit_code in _OVER_A_LIMIT:
        raise PackageError(
            "compile-limit",
            f"compiling took more than {limits.processor_seconds} s or {limits.data_bytes >> 20} MiB",
            where="Wasm",
            advice="make the code smaller",
        )
    how = f"signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    raise EnclaveError("compiler-failed", f"the compiler ended by {how}", where="Wasm")


def _run(source: int, code: int, limits: CompileLimits) -> int:
    import subprocess  # only a cold start needs it

    arguments = (source, code, os.getpid(), limits.processor_seconds, limits.data_bytes)
    # What it says on its way out (an abort of Rust, a traceback) is for nobody: the exit code tells it all.
    compiler = subprocess.Popen(
        [sys.executable, "-I", "-m", "edgeclave.enclave.compiler", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(source, code),
        env={},
        cwd="/",
    )
    try:
        return compiler.wait(limits.seconds)
    except subprocess.TimeoutExpired:
        compiler.kill()
        return compiler.wait()
