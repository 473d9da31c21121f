"""Becomes a module's process, tied to the simulator's life: `python -I launcher.py SIMULATOR_PID COMMAND...`.

The kernel kills the process when the simulator dies, even by SIGKILL, so that no orphan holds a module's state.
Standard library only: it runs before every module.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; survives the exec below


def main() -> None:
    simulator, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != simulator:  # it died before the line above
        sys.exit("the simulator is gone")
    os.execv(command[0], command)  # noqa: S606 - the command is the supervisor's own


if __name__ == "__main__":
    main()
