"""Structured log lines of the simulator, on the standard logger `edgeclave.simulator`.

Wrapped logger by logger instead of configuring structlog globally: the simulator also runs inside other people's tests.
"""

from __future__ import annotations

import logging
from typing import cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

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


def http_logger() -> logging.Logger:
    """For aiohttp's servers: a client that does not speak HTTP is a line of the log, not a traceback."""
    made = logging.getLogger(f"{LOGGER_NAME}.http")
    if not any(isinstance(each, _ClientsFaults) for each in made.filters):
        made.addFilter(_ClientsFaults())
    return made


class _ClientsFaults(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
            record.msg, record.args, record.exc_info = "not HTTP: %s", (type(error).__name__,), None
        return True
