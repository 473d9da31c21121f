"""Quotes, endorsements and tokens as other tools write them to files: in hex, base64, PEM, JSON or UTF-16, behind Open
Enclave's header.

Taken apart layer by layer, and trusted in nothing: what is inside is verified like any other, and what stands around it
is not looked at again. Evidence inside messages of ours is never wrapped.

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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from edgeclave.errors import EvidenceError
from edgeclave.evidence.endorsements import Endorsement, EndorsementType, read_any

MAX_LAYERS = 4  # JSON, base64, Open Enclave's header: nobody makes more
MAX_WRAPPED_BYTES = 256 << 10  # the largest quote has 5 KiB, a JSON around it some certificates
JSON_NAMES = ("quote", "report", "evidence", "Quote", "Report", "SnpReport", "hcl_report")
"""Requests to Microsoft Azure Attestation, answers of quoting services, attestation agents: where the quote is, in
base64 or hex."""
MAX_VALUES = 64  # of a JSON that may be endorsements; AMD's chain with its list has five
_OPEN_ENCLAVE = struct.Struct("<IIQ")  # oe_report_header_t: version, type, size of what follows
_VERSION, _LOCAL, _REMOTE = 1, 1, 2
_HEX = re.compile(rb"(?:0x)?(?:[0-9A-Fa-f]\s*[0-9A-Fa-f]\s*)+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_BEARER = re.compile(rb"(?:authorization:\s*)?bearer\s+", re.IGNORECASE)
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


def endorsements_in(data: bytes, types: Iterable[EndorsementType]) -> list[Endorsement]:
    """All endorsements of these types that a file holds, in any layer.

    Layers: the file; what its hex or base64 stands for; the values of a JSON object, like that of Azure's service for
    certificates of AMD. PEM is read by the types themselves.
    """
    known, layer, found = tuple(types), [data], dict[Endorsement, None]()
    for _ in range(MAX_LAYERS + 1):
        found |= {endorsement: None for each in layer for endorsement in read_any(each, known)}
        layer = [inner for each in layer if len(each) <= MAX_WRAPPED_BYTES for inner in _inside(each)]
    return list(found)


def token_in(data: bytes) -> bytes | None:
    """The JWT that a file holds, as far as a glance can tell: alone, as JSON or `token` of JSON, or behind `Bearer`."""
    if len(data) > MAX_WRAPPED_BYTES:
        return None
    text = _text(data)
    if text[:1] in (b"{", b'"'):
        value = _json(text)
        value = value.get("token") if isinstance(value, dict) else value
        text = value.encode("utf-8", "replace").strip() if isinstance(value, str) else b""
    bearer = _BEARER.match(text)
    text = text[bearer.end() :] if bearer else text
    return text if text.startswith(b"eyJ") and text.count(b".") == 2 and text.isascii() else None


def _text(data: bytes) -> bytes:
    """Without what editors and shells of Windows put before it, and white space around it."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    return data.removeprefix(codecs.BOM_UTF8).strip()


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _inner(data: bytes) -> tuple[str, bytes] | None:
    text = _text(data)
    if text.startswith(b"{"):
        return _in_json(text)
    if pem := _PEM.fullmatch(text):
        found = None if pem[1] == b"CERTIFICATE" else _decoded(pem[2])
        return None if found is None else ("PEM", found)
    if (found := _decoded(text)) is not None:
        return "hex" if _HEX.fullmatch(text) else "base64", found
    return _behind_header(data)


def _in_json(text: bytes) -> tuple[str, bytes] | None:
    values = _json(text)
    for name in JSON_NAMES if isinstance(values, dict) else ():
        value = values.get(name)
        if isinstance(value, str) and (found := _decoded(value.encode("utf-8", "replace"))) is not None:
            return "JSON", found
    return None


def _inside(data: bytes) -> list[bytes]:
    text = _text(data)
    if text != data.strip():
        return [text]
    if not text.startswith(b"{"):
        found = _decoded(text)
        return [] if found is None else [found]
    values = _json(text)
    try:
        return list(islice(_values(values.values()), MAX_VALUES)) if isinstance(values, dict) else []
    except RecursionError:
        return []


def _values(values: Iterable[Any]) -> Iterator[bytes]:
    """Texts, bytes as lists of numbers, and objects as JSON again; of lists, what is in them."""
    for value in values:
        if isinstance(value, str):
            yield value.encode("utf-8", "replace")
        elif isinstance(value, dict):
            yield json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        elif isinstance(value, list):
            try:
                yield bytes(value)
            except (TypeError, ValueError):
                yield from _values(value)


def _decoded(text: bytes) -> bytes | None:
    plain = b"".join(text.split())
    if _HEX.fullmatch(text):
        # Without white space, which may stand inside a pair.
        return bytes.fromhex(plain.removeprefix(b"0x").decode())
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
