"""The enclave process: `python -I -m edgeclave.enclave --package-fd N --hardware-fd N`, where there is compiled
code `--cache-fd N`, and `--cache-out-fd N` for what had to be compiled: memory files both. `--debug` opens it to
debuggers and takes deadlines away; then its evidence says debug, and it has other keys.

Requests come on standard input and replies leave on standard output; log lines are JSON on standard error. It is
started by `edgeclave.platforms`, never by hand.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback

from edgeclave.enclave import lockdown
from edgeclave.enclave.files import Files

EXIT_REFUSED = 1
EXIT_DEFECT = 70  # EX_SOFTWARE of sysexits.h


def main() -> int:
    arguments = _arguments()
    lockdown.before_secrets(debuggable=arguments.debug)
    reading, writing = _take_pipe()
    files = Files(arguments.package_fd, arguments.cache_fd, arguments.cache_out_fd)
    files.begin_reading()
    # After the first lockdown, since importing takes most of the time of a start.
    from edgeclave.enclave.emulated_hardware import EmulatedHardware
    from edgeclave.enclave.log import enclave_log
    from edgeclave.enclave.pipe import Pipe
    from edgeclave.enclave.server import serve
    from edgeclave.enclave.starting import start
    from edgeclave.errors import EdgeclaveError

    try:
        hardware = EmulatedHardware.from_descriptor(arguments.hardware_fd, debug=arguments.debug)
        pipe = Pipe(reading, writing)
        serve(pipe, lambda request: start(request, files, hardware, pipe))
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgeclave.enclave", description="One trusted application inside its TEE.")
    parser.add_argument("--package-fd", type=int, required=True)
    parser.add_argument("--hardware-fd", type=int, required=True)
    parser.add_argument("--cache-fd", type=int)
    parser.add_argument("--cache-out-fd", type=int)
    parser.add_argument("--debug", action="store_true")
    return parser.parse_args()


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
