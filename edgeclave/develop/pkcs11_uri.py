"""PKCS#11 URIs (RFC 7512), as far as they name a signing key: token, object, library and where its PIN is.

>>> key = parse_uri("pkcs11:token=release;object=ta%20signer?module-path=/usr/lib/softhsm/libsofthsm2.so")
>>> key.token, key.object
('release', 'ta signer')
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from edgeclave.errors import ConfigurationError

SCHEME = "pkcs11:"
MAX_URI_CHARACTERS = 2048
_PATH = {"token", "serial", "object", "id", "type"}
_QUERY = {"module-path", "pin-source"}


@dataclass(frozen=True)
class KeyUri:
    """Which key. `id` is the CKA_ID. `pin_file` is None when the PIN comes from elsewhere."""

    token: str | None
    serial: str | None
    object: str | None
    id: bytes | None
    module: Path | None
    pin_file: Path | None


def parse_uri(uri: str) -> KeyUri:
    """Raises ConfigurationError `bad-pkcs11-uri`."""
    if len(uri) > MAX_URI_CHARACTERS or not uri.startswith(SCHEME):
        raise _bad(f"it must begin with {SCHEME} and have at most {MAX_URI_CHARACTERS} characters")
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    names = _attributes(path, ";", _PATH)
    how = _attributes(query, "&", _QUERY)
    if not names.keys() & {"token", "serial"} or not names.keys() & {"object", "id"}:
        raise _bad("it must name a token (token or serial) and a key (object or id)")
    if names.get("type", b"private") != b"private":
        raise _bad("type must be private, or be left out")
    source = how.get("pin-source")
    return KeyUri(
        token=_text(names.get("token")),
        serial=_text(names.get("serial")),
        object=_text(names.get("object")),
        id=names.get("id"),
        module=_path(how.get("module-path")),
        pin_file=None if source is None else _path(source.removeprefix(b"file://").removeprefix(b"file:")),
    )


def _attributes(text: str, separator: str, known: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else []:
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise _bad(
                "a PIN must not stand in it, where every user of this machine can read it",
                "use pin-source=file:/path, or the variable EDGECLAVE_PKCS11_PIN, or type it when asked",
            )
        if not equals or not value or name not in known or name in found:
            raise _bad(f"{name[:40]!r} is unknown here, empty or repeated; known are {', '.join(sorted(known))}")
        found[name] = unquote_to_bytes(value)
    return found


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        raise _bad("names must be UTF-8") from None


def _path(value: bytes | None) -> Path | None:
    text = _text(value)
    if text is not None and not text.startswith("/"):
        raise _bad(f"{text[:200]!r} must be an absolute path")
    return None if text is None else Path(text)


def _bad(
    what: str, advice: str = "write it as pkcs11:token=TOKEN;object=KEY?module-path=/path/of/library.so"
) -> ConfigurationError:
    return ConfigurationError("bad-pkcs11-uri", what, where="--key", advice=advice)
