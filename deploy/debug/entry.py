"""Starts a module under debugpy; what the debug images run.

    python3 entry.py MAIN

A debugger attaches on port 5678 at any time. With DEBUG_WAIT=1 in the environment the module waits for it.
"""

from __future__ import annotations

import os
import sys

LISTEN = "0.0.0.0:5678"  # what is published of it, and where, the container's createOptions say

options = ["--listen", LISTEN, *(["--wait-for-client"] if os.environ.get("DEBUG_WAIT") == "1" else [])]
# Not frozen: breakpoints in the standard library would be missed, and debugpy warns of it.
os.execv(sys.executable, [sys.executable, "-Xfrozen_modules=off", "-m", "debugpy", *options, *sys.argv[1:]])  # noqa: S606
