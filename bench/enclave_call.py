"""A call with 1 KiB of JSON of a C trusted application as the enclave runs it, against wasmtime-py calling it bare.

A process of its own plays the enclave, because starting an instance locks its process down for good.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.device import ROOT
from bench.row import Row
from tests.fixtures.builds import TRUSTED_APPS, build_package


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        package = build_package(TRUSTED_APPS / "probe_c", Path(folder))
        command = [sys.executable, "-m", "bench.inside_enclave", str(package.path), str(package.wasm)]
        printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    ours, reference = map(float, printed.split())
    against = "bare wasmtime-py call of the same function"
    return [Row("TA call inside the enclave process (1 KiB JSON, C TA)", against, "µs", ours, reference, 2.0)]
