#!/usr/bin/env python3
"""Sets up a Debian 12, Ubuntu 22.04 or Ubuntu 24.04 machine as an IoT Edge gateway for Edgeclave.

What is there already is left alone, so run it as often as you like. With --check nothing is changed. gateway.py says
what is done.

Packages come from an apt source that you have set up, or from the one in --package-source (the
`packages-microsoft-prod.deb` of your distribution, or a .list or .sources file, downloaded by you): this program knows
no package server's address.

Standard library only, Python 3.10 and later: copy this folder to the gateway.
"""

from __future__ import annotations

import argparse
import binascii
import json
import os
import re
import signal
import sys
from pathlib import Path

from gateway import DEVICES, DPS, Gateway, Step, wanted_config
from machine import Machine, Refused

ALL_THERE, SOMETHING_MISSING, WRONG_USAGE = 0, 1, 2
EXAMPLE = """\
example:
  sudo ./set_up.py --package-source packages-microsoft-prod.deb \\
      --id-scope 0ne00ABCDEF --registration-id press-2 --symmetric-key-file press-2.key --tee tpm
  sudo ./set_up.py --check

exit codes: 0 all is there; 1 something is missing, or could not be done; 2 wrong usage
"""


def read_options(arguments: list[str]) -> argparse.Namespace:
    """Exits with 2 and a reason when they do not fit together."""
    parser = argparse.ArgumentParser(
        prog="set_up.py",
        description=(__doc__ or "").partition("\n\n")[0] + " Run it as root; it may be run again at any time.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="change nothing; say what is there and what is missing")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--root", type=Path, default=Path("/"), help="a folder to set up instead: files only")
    source = os.environ.get("EDGECLAVE_PACKAGE_SOURCE")
    parser.add_argument("--package-source", type=Path, metavar="FILE", default=Path(source) if source else None,
                        help="a .deb, .list or .sources file that sets up the apt source, downloaded by you "
                        "[the variable EDGECLAVE_PACKAGE_SOURCE]")  # fmt: skip
    parser.add_argument("--id-scope", help="of the device provisioning service")
    parser.add_argument("--registration-id", help="of this device")
    parser.add_argument("--global-endpoint", default=DPS, help="of the device provisioning service [%(default)s]")
    parser.add_argument("--symmetric-key-file", type=Path, metavar="FILE", help="the device's own key, base64")
    parser.add_argument(
        "--certificate", type=Path, metavar="FILE", help="the registration's X.509 certificate chain, PEM"
    )
    parser.add_argument("--private-key", type=Path, metavar="FILE", help="its key, PEM")
    parser.add_argument(
        "--tee", action="append", choices=sorted(DEVICES), default=[], help="give its devices to modules"
    )
    options = parser.parse_args(arguments)
    if problem := _problem(options):
        parser.error(problem)
    return options


def _problem(options: argparse.Namespace) -> str | None:
    given = options.symmetric_key_file or options.certificate or options.private_key
    if bool(options.id_scope) != bool(options.registration_id) or bool(options.registration_id) != bool(given):
        return "--id-scope, --registration-id and a key go together"
    if options.symmetric_key_file and options.certificate:
        return "give either --symmetric-key-file, or --certificate with --private-key"
    if bool(options.certificate) != bool(options.private_key):
        return "--certificate and --private-key go together"
    files = (options.package_source, options.symmetric_key_file, options.certificate, options.private_key)
    if missing := [
        str(file) for file in files if file is not None and not (file.is_file() and os.access(file, os.R_OK))
    ]:
        return f"{missing[0]} is not a file that can be read"
    for file, kind in ((options.certificate, "CERTIFICATE"), (options.private_key, "PRIVATE KEY")):
        if file is not None and f"{kind}-----".encode() not in file.read_bytes():
            return f"{file} holds no {kind} in PEM"
    for name in ("id_scope", "registration_id", "global_endpoint"):
        if not re.fullmatch(r"[A-Za-z0-9._:/-]{1,128}", getattr(options, name) or "x"):
            return f"--{name.replace('_', '-')} has characters that do not belong there"
    try:
        wanted_config(options)
    except (binascii.Error, UnicodeDecodeError):
        return f"{options.symmetric_key_file} does not hold a base64 key"
    return None


def main(arguments: list[str]) -> int:
    """Does or checks every step; returns the exit code."""
    options = read_options(arguments)
    machine = Machine(options.root)
    if not options.check and machine.real and os.geteuid() != 0:
        print("set_up.py: run it as root, or with --check", file=sys.stderr)
        return WRONG_USAGE
    missing = 0
    for step in Gateway(machine, options).steps():
        state, what = _carry_out(step, check=options.check)
        missing += state == "missing"
        if options.json:
            advice = step.advice if state == "missing" else ""
            print(json.dumps({"step": step.name, "state": state, "what": what, "advice": advice}), flush=True)
        else:
            print(f"{state:<8} {step.name}{f': {what}' if what else ''}", flush=True)
            if state == "missing":
                print(f"         do: {step.advice}", flush=True)
    return SOMETHING_MISSING if missing else ALL_THERE


def _carry_out(step: Step, *, check: bool) -> tuple[str, str]:
    """("ok" | "done" | "missing", what is missing or was)."""
    try:
        missing = step.missing()
        if missing is None:
            return "ok", ""
        if check or step.do is None:
            return "missing", missing
        step.do()
        still = step.missing()
    except Refused as reason:
        return "missing", str(reason)
    except OSError as error:
        return "missing", f"{error.filename or 'it'}: {error.strerror}"
    return ("missing", still) if still else ("done", missing)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `set_up.py --check | head` ends without a word
    sys.exit(main(sys.argv[1:]))
