"""Quotes as other tools write them to files: in hex, base64 or PEM, in JSON, behind Open Enclave's header.

Taken apart layer by layer, and trusted in nothing: the quote inside is verified like any other, and what stands around
it is not looked at again. Evidence inside messages of ours is never wrapped.

>>> [content.how for content in contents(b'{"quote": "AQAAAAIAAAAFAAAAAAAAACojKiMq"}')]
['', 'JSON', 'JSON, Open Enclave report']
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edgeclave.errors import EvidenceError

MAX_LAYERS = 4  # JSON, base64, Open Enclave's header: nobody makes more
MAX_WRAPPED_BYTES = 256 << 10  # the largest quote has 5 KiB, a JSON around it some certificates
JSON_NAMES = ("quote", "report", "evidence", "Quote", "Report", "SnpReport")
"""Requests to Microsoft Azure Attestation and answers of quoting services: where the quote is, base64url or hex."""
_OPEN_ENCLAVE = struct.Struct("<IIQ")  # oe_report_header_t: version, type, size of what follows
_VERSION, _LOCAL, _REMOTE = 1, 1, 2
_HEX = re.compile(rb"(?:[0-9A-Fa-f]\s*[0-9A-Fa-f]\s*)+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----\s(.*?)-----END \1-----\s*", re.DOTALL)


@dataclass(frozen=True)
class Content:
    """Bytes, and the layers around them for people; empty for the file itself."""

    data: bytes
    how: str = ""


def contents(data: bytes) -> Iterator[Content]:
    """The file as it is, then what is inside it, layer by layer.

    Raises:
        EvidenceError: `malformed-quote` for a header whose sizes are wrong, `local-report`.
    """
    content = Content(data)
    for _ in range(MAX_LAYERS + 1):
        yield content
        inner = _inner(content.data) if len(content.data) <= MAX_WRAPPED_BYTES else None
        if inner is None:
            return
        layer, data = inner
        content = Content(data, ", ".join(filter(None, (content.how, layer))))


def _inner(data: bytes) -> tuple[str, bytes] | None:
    text = data.removeprefix(codecs.BOM_UTF8).strip()
    if text.startswith(b"{"):
        return _in_json(text)
    if pem := _PEM.fullmatch(text):
        found = None if pem[1] == b"CERTIFICATE" else _decoded(pem[2])
        return None if found is None else ("PEM", found)
    if (found := _decoded(text)) is not None:
        return "hex" if _HEX.fullmatch(text) else "base64", found
    return _behind_header(data)


def _in_json(text: bytes) -> tuple[str, bytes] | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    for name in JSON_NAMES:
        value = values.get(name)
        if isinstance(value, str) and (found := _decoded(value.encode("utf-8", "replace"))) is not None:
            return "JSON", found
    return None


def _decoded(text: bytes) -> bytes | None:
    plain = b"".join(text.split())
    if _HEX.fullmatch(text):
        return bytes.fromhex(plain.decode())  # without white space: it may stand inside a pair
    if not _BASE64.fullmatch(text):
        return None
    plain = plain.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        return None


def _behind_header(data: bytes) -> tuple[str, bytes] | None:
    """oe_report_header_t, little-endian (Open Enclave, include/openenclave/internal/report.h)."""
    if len(data) <= _OPEN_ENCLAVE.size:
        return None
    version, kind, size = _OPEN_ENCLAVE.unpack_from(data)
    if version != _VERSION or kind not in (_LOCAL, _REMOTE) or size >> 32:
        return None
    if kind == _LOCAL:
        raise EvidenceError(
            "local-report",
            "an Open Enclave report for enclaves on the same machine, which nobody else can verify",
            advice="ask for a remote report (OE_REPORT_FLAGS_REMOTE_ATTESTATION)",
        )
    if size != len(data) - _OPEN_ENCLAVE.size:
        raise EvidenceError(
            "malformed-quote",
            f"an Open Enclave report of {len(data) - _OPEN_ENCLAVE.size} bytes, but its header says {size}",
            advice="do not use it; it was cut off or something stands behind it",
        )
    return "Open Enclave report", data[_OPEN_ENCLAVE.size :]
