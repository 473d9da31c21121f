"""`python3 -m enclave_broker.verify_audit [FOLDER]`: whether each line of the audit log follows the one before.

For operators, in the module's container or beside a copy of its log. Exit code 0: whole; 1: it is not, with the place.
"""

from __future__ import annotations

import sys
from pathlib import Path

from enclave_broker.audit import AuditError, verify

FOLDER = Path("/var/lib/edgeclave/audit")


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nFOLDER is {FOLDER} by default.", file=sys.stderr)
        return 2
    try:
        found = verify(Path(arguments[0]) if arguments else FOLDER)
    except AuditError as error:
        print(f"error [{error.code}]: {error.what}\n  where: {error.where}", file=sys.stderr)
        if error.advice:
            print(f"  do:    {error.advice}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error [audit-unreadable]: {error.strerror}\n  where: {error.filename}", file=sys.stderr)
        return 1
    print(f"whole: lines {found.first} to {found.last} in {found.files} files")
    print(f"the last line has the digest {found.digest}; compare it with `audit` in the module's reported properties")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
