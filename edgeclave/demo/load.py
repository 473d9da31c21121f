"""A real burst of load: busy processes, one for each processor, for some seconds."""

from __future__ import annotations

import os
import subprocess
import sys

_SPIN = "import sys, time\nend = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass"


def burst(seconds: float) -> list[subprocess.Popen[bytes]]:
    """Starts the load and returns at once; the processes end by themselves."""
    # Lowest priority: the device's vitals show the load, and the modules keep their share of the processor.
    command = [sys.executable, "-I", "-c", "import os\nos.nice(19)\n" + _SPIN, str(seconds)]
    return [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
