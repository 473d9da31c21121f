"""A vault for notes: they stay in trusted storage, and leave it only sealed to this product."""

from __future__ import annotations

import json
from typing import Any

from edgeclave_ta import Failure, TrustedApp, tee

CONTEXT = "vault/export"

app = TrustedApp()


@app.method
def add(payload: Any) -> dict[str, int]:
    """Keeps {"note"}; returns how many were ever added, a number that never goes back."""
    if not isinstance(payload, dict) or not isinstance(payload.get("note"), str):
        raise Failure(400, 'give {"note": "text"}')
    tee.put("notes", json.dumps([*_notes(), payload["note"]]))
    return {"added": tee.increment("added")}


@app.method
def read(_payload: Any) -> dict[str, Any]:
    return {"notes": _notes(), "storage": tee.storage_protection(), "emulated": tee.emulated()}


@app.method
def export(_payload: Any) -> dict[str, str]:
    """All notes, readable by this and any later version of this product on this device, and by nobody else."""
    return {"sealed": tee.seal(json.dumps(_notes()), context=CONTEXT, policy="product")}


@app.method("open")
def open_export(payload: Any) -> dict[str, Any]:
    """The notes of an export, and which security version sealed it."""
    try:
        unsealed = tee.unseal(payload["sealed"], context=CONTEXT)
    except tee.TeeError as error:
        raise Failure(403, str(error)) from error
    return {"notes": json.loads(unsealed.plaintext), "sealed_by": unsealed.sealed_by.security_version}


@app.method
def find(payload: Any) -> dict[str, list[str]]:
    """Notes that contain {"text"}: new in this version."""
    if not isinstance(payload, dict) or not isinstance(payload.get("text"), str):
        raise Failure(400, 'give {"text": "part of a note"}')
    return {"notes": [note for note in _notes() if payload["text"] in note]}


def _notes() -> list[str]:
    return json.loads(tee.get("notes") or "[]")
