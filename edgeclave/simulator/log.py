"""Structured log lines of the simulator, on the standard logger `edgeclave.simulator`.

Wrapped logger by logger instead of configuring structlog globally: the simulator also runs inside other people's tests.
"""

from __future__ import annotations

import logging
from typing import cast

import structlog

LOGGER_NAME = "edgeclave.simulator"


def logger(part: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines name the part of the simulator they come from. Never hand it keys or tokens."""
    wrapped = structlog.wrap_logger(
        logging.getLogger(f"{LOGGER_NAME}.{part}"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        part=part,
    )
    return cast("structlog.stdlib.BoundLogger", wrapped)
