"""How answers and the enclave's log are shown: replies on standard output, the log on standard error.

JSON of a trusted application is printed as it is: decoded and written again, 1e400 would become Infinity.
"""

from __future__ import annotations

import json
import logging
import sys

import typer

from edgeclave.develop.device import Answer, Result


def show(answer: Answer, *, as_json: bool) -> None:
    """The reply, then what was emitted; as JSON one object on one line, which a failure has too."""
    if as_json:
        typer.echo(_described(answer))
    elif answer.reply is not None:
        typer.echo(answer.reply)
        for result in answer.results:
            typer.echo(f"emitted to {result.output}, number {result.sequence}: {_on_one_line(result.text)}")


def show_log() -> None:
    """Sends what the enclave and the trusted application in it log to standard error."""
    logger = logging.getLogger("edgeclave.enclave")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(source)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False


def _described(answer: Answer) -> str:
    if answer.reply is None:
        return json.dumps({"status": answer.status, "message": answer.message}, ensure_ascii=False)
    results = ", ".join(map(_described_result, answer.results))
    return f'{{"status": {answer.status}, "reply": {_on_one_line(answer.reply)}, "results": [{results}]}}'


def _described_result(result: Result) -> str:
    output, payload = json.dumps(result.output), _on_one_line(result.text)
    return f'{{"output": {output}, "sequence": {result.sequence}, "payload": {payload}}}'


def _on_one_line(text: str) -> str:
    """In JSON a line can end between its parts only."""
    return text.replace("\r", " ").replace("\n", " ")
