"""The compiler: `python -I -m edgeclave.enclave.compiler WASM_FD CODE_FD PARENT SECONDS BYTES`.

Started by `edgeclave.enclave.compilation`, never by hand. It writes compiled code, or why there is none, to CODE_FD.
"""

from __future__ import annotations

import os
import sys

from wasmtime import WasmtimeError
from wasmtime.component import Component

from edgeclave.enclave.compilation import EXIT_NOT_ISOLATED, EXIT_OVER_LIMIT, EXIT_REFUSED, MAX_ERROR_BYTES
from edgeclave.enclave.engine import make_engine
from edgeclave.enclave.files import MAX_COMPILED_BYTES
from edgeclave.enclave.lockdown import before_compiling
from edgeclave.enclave.memory_files import write_all
from edgeclave.errors import EnclaveError


def main() -> int:
    source, code, parent, processor_seconds, data_bytes = map(int, sys.argv[1:])
    with os.fdopen(source, "rb") as file:
        file.seek(0)
        wasm = file.read()
    engine = make_engine(parallel_compilation=True)
    try:
        before_compiling(parent, processor_seconds, data_bytes, MAX_COMPILED_BYTES)
    except EnclaveError as error:
        write_all(code, error.what.encode()[:MAX_ERROR_BYTES])
        return EXIT_NOT_ISOLATED
    try:
        write_all(code, Component(engine, wasm).serialize())
    except WasmtimeError as error:
        write_all(code, " ".join(str(error).split())[: MAX_ERROR_BYTES // 4].encode())
        return EXIT_REFUSED
    except (MemoryError, OSError):
        return EXIT_OVER_LIMIT
    return 0


if __name__ == "__main__":
    exit_code = main()
    os._exit(exit_code)  # nothing here needs an orderly end
