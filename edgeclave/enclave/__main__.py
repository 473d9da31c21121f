"""The enclave process: `python -I -m edgeclave.enclave PACKAGE HARDWARE CODE FRESH [--debug]`, descriptors all: of the
package, of the emulated hardware's secrets, of compiled code and of an empty file for what had to be compiled, both in
memory and both -1 where there is none. `--debug` opens it to debuggers and takes deadlines away; then its evidence says
debug, and it has other keys.

Requests come on standard input and replies leave on standard output; log lines are JSON on standard error. It is
started by `edgeclave.platforms`, never by hand.
"""

from __future__ import annotations

import os
import sys
import traceback

from edgeclave.enclave import lockdown
from edgeclave.enclave.files import Files

EXIT_REFUSED = 1
EXIT_DEFECT = 70  # EX_SOFTWARE of sysexits.h


def main() -> int:
    files, hardware_descriptor, debug = _arguments()
    lockdown.before_secrets(debuggable=debug)
    reading, writing = _take_pipe()
    files.begin_reading()
    # After the first lockdown, since importing takes most of the time of a start.
    from edgeclave.enclave.emulated_hardware import EmulatedHardware
    from edgeclave.enclave.loading import compile_ahead
    from edgeclave.enclave.log import enclave_log
    from edgeclave.enclave.pipe import Pipe
    from edgeclave.enclave.server import serve
    from edgeclave.enclave.starting import start
    from edgeclave.errors import EdgeclaveError

    try:
        hardware = EmulatedHardware.from_descriptor(hardware_descriptor, debug=debug)
        pipe = Pipe(reading, writing)
        serve(pipe, lambda request: start(request, files, hardware, pipe), lambda: compile_ahead(files, hardware))
    except EdgeclaveError as error:
        enclave_log("error", f"the enclave ends: {error}")
        return EXIT_REFUSED
    except BrokenPipeError:
        enclave_log("error", "the enclave ends: the host closed the pipe")
        return EXIT_REFUSED
    except Exception as error:
        enclave_log("error", f"the enclave ends by a defect: {type(error).__name__}: {error}")
        enclave_log("debug", " | ".join(traceback.format_exc().splitlines()))
        return EXIT_DEFECT
    return 0


def _arguments() -> tuple[Files, int, bool]:
    """The files, the hardware's descriptor, and whether this is for a debugger."""
    package, hardware, code, fresh = map(int, sys.argv[1:5])  # argparse would take longer than all of this module
    files = Files(package, None if code < 0 else code, None if fresh < 0 else fresh)
    return files, hardware, sys.argv[5:] == ["--debug"]


def _take_pipe() -> tuple[int, int]:
    """Moves the pipe away from descriptors 0 and 1, so that nothing that prints or reads by habit can touch it."""
    reading, writing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return reading, writing


if __name__ == "__main__":
    code = main()
    # The deadline thread and wasmtime's own state need no orderly end, and an interpreter's takes longer than a call.
    sys.stderr.flush()
    os._exit(code)
