"""GDB around an enclave process that is open to it: what `edgeclave ta debug` starts.

The terminal is GDB's. The enclave's own pipe comes through GDB under other numbers, and a wrapper that GDB runs puts it
in place and takes the environment away, so that the enclave starts as it always does. wasmtime tells GDB of code as it
is loaded (GDB's interface for just-in-time compilers), so breakpoints in the sources of a trusted application are
pending until then.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeclave.errors import ConfigurationError

_INTO_PLACE = (
    "import os, sys\n"
    "for number, inherited in enumerate(sys.argv[1].split()): os.dup2(int(inherited), number)\n"
    "os.execve(sys.argv[2], sys.argv[2:], {})"
)
_HINT = (
    "Set breakpoints in your C source, as in `break app.c:12` or `break app.c:observe`; then `run` makes the call.\\n"
)


@dataclass(frozen=True)
class Debugger:
    """How GDB is started: with options of its user's, and a file of commands when nobody is to type them."""

    options: Sequence[str] = ()
    batch_commands: Path | None = None

    async def start(self, command: Sequence[str], descriptors: Sequence[int]) -> asyncio.subprocess.Process:
        """Starts GDB on the enclave's command; the process has the pipe of the enclave as its standard streams.

        Raises:
            ConfigurationError: `no-debugger`.
        """
        gdb = shutil.which("gdb")
        if gdb is None:
            raise ConfigurationError(
                "no-debugger", "gdb is not installed", advice="install it, as in `apt-get install gdb`"
            )
        terminal = [os.dup(number) for number in range(3)]
        pipe = [os.dup(number) for number in range(3)]  # only numbers that nothing else has: see `rearrange`

        def rearrange() -> None:
            for number in range(3):
                os.dup2(number, pipe[number])
                os.dup2(terminal[number], number)

        try:
            return await asyncio.create_subprocess_exec(
                gdb,
                *self._options(pipe),
                "--args",
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(*descriptors, *pipe),
                preexec_fn=rearrange,
            )
        finally:
            for descriptor in (*terminal, *pipe):
                os.close(descriptor)

    def _options(self, pipe: Sequence[int]) -> list[str]:
        numbers = " ".join(str(number) for number in pipe)
        wrapper = shlex.join([sys.executable, "-I", "-c", f"exec({_INTO_PLACE!r})", numbers])
        settings = [
            "breakpoint pending on",
            "debuginfod enabled off",
            "auto-load python-scripts off",
            f"exec-wrapper {wrapper}",
        ]
        options = ["-q", *(part for setting in settings for part in ("-iex", f"set {setting}"))]
        if self.batch_commands is not None:
            return [*options, *self.options, "-batch", "-x", str(self.batch_commands)]
        if not self.options:
            options += ["-ex", f"echo {_HINT}"]
        return [*options, *self.options]
