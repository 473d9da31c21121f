"""How answers and the enclave's log are shown: replies on standard output, the log on standard error."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import typer

from edgeclave.develop.device import Answer, Result


def show(answer: Answer, *, as_json: bool) -> None:
    """The reply, then what was emitted; as JSON one object on one line, which a failure has too."""
    if as_json:
        typer.echo(json.dumps(_described(answer), ensure_ascii=False))
    elif answer.reply is not None:
        typer.echo(answer.reply)
        for result in answer.results:
            payload = json.dumps(result.payload, ensure_ascii=False)
            typer.echo(f"emitted to {result.output}, number {result.sequence}: {payload}")


def show_log() -> None:
    """Sends what the enclave and the trusted application in it log to standard error."""
    logger = logging.getLogger("edgeclave.enclave")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(source)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False


def _described(answer: Answer) -> dict[str, Any]:
    if answer.reply is None:
        return {"status": answer.status, "message": answer.message}
    return {
        "status": answer.status,
        "reply": json.loads(answer.reply),
        "results": [_described_result(result) for result in answer.results],
    }


def _described_result(result: Result) -> dict[str, Any]:
    return {"output": result.output, "sequence": result.sequence, "payload": result.payload}
