"""The OpenAPI document of the broker, served at /openapi.json. Tests compare it with the routes."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from edgeclave import __version__
from edgeclave.edge.link.messages import MAX_ACKNOWLEDGED_CALLS, MAX_DEADLINE_MS, NAME_PATTERN
from enclave_broker.responses import AcknowledgeAnswer, ErrorAnswer, EvidenceAnswer, ListAnswer

_NAME_SCHEMA = {"type": "string", "pattern": NAME_PATTERN.replace(r"\Z", "$")}
_ERRORS = {
    "400": "The request is malformed",
    "403": "The caller is not identified, or the policy denies it",
    "404": "There is no such trusted application",
    "413": "The payload is too large",
    "429": "This caller asks for too much; see Retry-After",
    "503": "Not now; see Retry-After, then repeat with the same call id",
    "504": "No answer before the deadline; repeat with the same call id",
}


@functools.cache
def document() -> bytes:
    """The document as JSON."""
    return msgspec.json.format(msgspec.json.encode(_document()), indent=1)


def _document() -> dict[str, Any]:
    answers = (AcknowledgeAnswer, ErrorAnswer, EvidenceAnswer, ListAnswer)
    _, schemas = msgspec.json.schema_components(answers, ref_template="#/components/schemas/{name}")
    schemas["InvokeAnswer"] = _invoke_answer_schema()
    trusted_app = _parameter("trustedApp", "path", _NAME_SCHEMA, "Name of a trusted application")
    deadline = _parameter(
        "Edgeclave-Deadline-Ms",
        "header",
        {"type": "integer", "minimum": 1, "maximum": MAX_DEADLINE_MS},
        "How long the caller waits; passed on to the trusted application",
    )
    call_id = _parameter(
        "Edgeclave-Call-Id", "header", _NAME_SCHEMA, "The same id again gets the same answer, and nothing happens twice"
    )
    call_ids = {"type": "array", "items": _NAME_SCHEMA, "minItems": 1, "maxItems": MAX_ACKNOWLEDGED_CALLS}
    acknowledgement = {"type": "object", "properties": {"callIds": call_ids}, "required": ["callIds"]}
    method = _parameter("method", "path", _NAME_SCHEMA, "Name of a method")
    nonce = _parameter("nonce", "query", {"type": "string"}, "8 to 64 random bytes in base64url, for fresh evidence")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "enclave_broker",
            "version": __version__,
            "description": "The way to trusted applications on this device, over mTLS with identity certificates.",
        },
        "paths": {
            "/v1/trusted-apps/{trustedApp}/methods/{method}": {
                "post": _operation(
                    "invoke", "InvokeAnswer", [trusted_app, method, call_id, deadline], body={"description": "Any JSON"}
                )
            },
            "/v1/trusted-apps/{trustedApp}/acknowledgements": {
                "post": _operation("acknowledge", "AcknowledgeAnswer", [trusted_app, deadline], body=acknowledgement)
            },
            "/v1/trusted-apps/{trustedApp}/evidence": {
                "get": _operation("getEvidence", "EvidenceAnswer", [trusted_app, nonce, deadline])
            },
            "/v1/trusted-apps": {"get": _operation("listTrustedApps", "ListAnswer", [deadline])},
            "/openapi.json": {
                "get": {"operationId": "openapi", "responses": {"200": {"description": "This document"}}}
            },
        },
        "components": {"schemas": schemas},
    }


def _invoke_answer_schema() -> dict[str, Any]:
    result = {
        "type": "object",
        "properties": {
            "output": {"type": "string"},
            "sequence": {"type": "integer"},
            "sealed": {"type": "string", "contentEncoding": "base64"},
        },
        "required": ["output", "sequence", "sealed"],
    }
    return {
        "type": "object",
        "description": "status 200 with a payload, or the trusted application's own failure with a message",
        "properties": {
            "callId": _NAME_SCHEMA,
            "status": {"type": "integer"},
            "payload": {},
            "message": {"type": "string"},
            "results": {"type": "array", "items": result},
        },
        "required": ["callId", "status", "results"],
    }


def _parameter(name: str, place: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": schema,
        "description": description,
    }


def _operation(
    name: str, answer: str, parameters: list[dict[str, Any]], body: dict[str, Any] | None = None
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": name,
        "parameters": parameters,
        "responses": {
            "200": {"description": "The answer", "content": _content(answer)},
            **{status: {"description": text, "content": _content("ErrorAnswer")} for status, text in _ERRORS.items()},
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _content(answer: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}}}
