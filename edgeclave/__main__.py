"""The `edgeclave` command, also as `python -m edgeclave`.

Importing takes a good part of a second, in which there is nothing to undo: Ctrl-C ends the process there and then,
instead of by a traceback of whatever was being imported.
"""

from __future__ import annotations

import signal


def main() -> None:
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else whoever started us ignores it
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from edgeclave.cli.main import main as command

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


if __name__ == "__main__":
    main()
