"""The first process of an emulated machine whose root file system is ta_runner's image.

It gives programs what a container would give them, runs each as the image's user, and turns the machine off. What they
print goes to the console between lines that the test looks for.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

USER = 10001
POWER_OFF = 0x4321_FEDC  # linux/reboot.h
PROGRAMS = {
    "app": ["/inside/one_app.py", "/inside/app.ta", "/tmp/folder"],
    "break-out": ["-m", "tests.fixtures.break_out"],
}

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    for kind, folder in ((b"proc", b"/proc"), (b"devtmpfs", b"/dev"), (b"tmpfs", b"/tmp")):
        _libc.mount(kind, folder, kind, 0, None)
    console = os.open("/dev/console", os.O_RDWR)  # the kernel opened none: there was no such file yet
    for descriptor in (0, 1, 2):
        os.dup2(console, descriptor)
    environment = {"PATH": "/opt/venv/bin:/usr/bin", "LANG": "C.UTF-8", "PYTHONPATH": "/inside"}
    for name, arguments in PROGRAMS.items():
        print(f"\n=== {name}", flush=True)
        done = subprocess.run(
            ["/opt/venv/bin/python3", *arguments],
            check=False,
            env=environment,
            cwd="/tmp",
            user=USER,
            group=USER,
            stdout=subprocess.PIPE,
        )
        print(f"\n{done.stdout.decode()}\n=== {name} ended {done.returncode}", flush=True)
    _libc.sync()
    _libc.reboot(POWER_OFF)


if __name__ == "__main__":
    try:
        main()
    finally:
        sys.stdout.flush()
        _libc.reboot(POWER_OFF)
