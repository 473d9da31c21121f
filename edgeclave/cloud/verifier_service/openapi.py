"""The OpenAPI document of the verifier service, served at /openapi.json. Tests compare it with the routes."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from edgeclave import __version__
from edgeclave.cloud.verifier_service.requests import (
    AppraisalRequest,
    AttestSgxRequest,
    ErrorAnswer,
    NonceAnswer,
    TokenAnswer,
)

_ERRORS = {
    "400": "The request is malformed",
    "408": "The body came too slowly",
    "413": "The body is too large",
    "415": "The body is not application/json",
    "422": "The evidence is refused, with the reason",
    "429": "This client asks for too much; see Retry-After",
    "503": "Not now: the service ends, or no signing key is valid",
}


@functools.cache
def document() -> bytes:
    """The document as JSON."""
    return msgspec.json.format(msgspec.json.encode(_document()), indent=1)


def _document() -> dict[str, Any]:
    structs = (AppraisalRequest, AttestSgxRequest, ErrorAnswer, NonceAnswer, TokenAnswer)
    _, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    version = {"name": "api-version", "in": "query", "required": False, "schema": {"type": "string"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgeclave verifier",
            "version": __version__,
            "description": "Appraises evidence under one policy. Tokens are RS256; pin issuer and keys (/certs).",
        },
        "paths": {
            "/v1/nonces": {"post": _operation("issueNonce", "NonceAnswer")},
            "/v1/appraisals": {"post": _operation("appraise", "TokenAnswer", "AppraisalRequest")},
            "/attest/SgxEnclave": {
                "post": {**_operation("attestSgxEnclave", "TokenAnswer", "AttestSgxRequest"), "parameters": [version]}
            },
            "/certs": {"get": _plain("getSigningCertificates", "JSON Web Key Set (RFC 7517) of all signing keys")},
            "/.well-known/openid-configuration": {"get": _plain("getOpenIdMetadata", "Issuer and where its keys are")},
            "/health/live": {"get": _plain("live", "The process answers")},
            "/health/ready": {"get": _plain("ready", "Requests are welcome; 503 while it ends")},
            "/metrics": {"get": _plain("metrics", "Prometheus metrics")},
            "/openapi.json": {"get": _plain("openapi", "This document")},
        },
        "components": {"schemas": schemas},
    }


def _plain(name: str, description: str) -> dict[str, Any]:
    return {"operationId": name, "responses": {"200": {"description": description}}}


def _operation(name: str, result: str, body: str = "") -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": name,
        "responses": {
            "200": {"description": "The answer", "content": _content(result)},
            **{status: {"description": text, "content": _content("ErrorAnswer")} for status, text in _ERRORS.items()},
        },
    }
    if body:
        operation["requestBody"] = {"required": True, "content": _content(body)}
    return operation


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
