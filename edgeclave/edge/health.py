"""Asks the module of this container whether it is well; what its image has Docker run (HEALTHCHECK).

    python3 -m edgeclave.edge.health

Prints the checks and exits 0 when all are well, 1 when not. Imports little: it is started every half minute.
"""

from __future__ import annotations

import http.client
import sys

from edgeclave.edge.store import DEFAULT_LISTEN_ADDRESS, listen_address

METRICS_PORT = 9600  # the port that Azure's metrics collector samples use for modules
ANSWER_SECONDS = 4
"""Less than the time-out of the image's HEALTHCHECK, so that what is wrong is said."""
MAX_ANSWER_BYTES = 4096
"""What Docker keeps of a health check's output."""


def main() -> int:
    """The exit code."""
    address = listen_address()
    address = "127.0.0.1" if address == DEFAULT_LISTEN_ADDRESS else address
    connection = http.client.HTTPConnection(address, METRICS_PORT, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        print(response.read(MAX_ANSWER_BYTES).decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer from {address}:{METRICS_PORT}: {error}")
        return 1
    return 0 if response.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
