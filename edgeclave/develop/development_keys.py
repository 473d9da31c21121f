"""Keys that only trying out needs: made on first use, in the key folder, so that `ta new` and `ta run` are enough.

Outside development these keys are somebody else's: a recipient authority that is in the key folder only by its public
half is used as it is, and then what the trusted application emits stays sealed here.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave.cose import spki
from edgeclave.errors import EdgeclaveError, ResultError
from edgeclave.keys import key_or_new, list_keys, load_private_key, private_key_path, public_key_path
from edgeclave.results.recipients import sign_recipient_set, verify_recipient_set
from edgeclave.ta.manifest import Output
from edgeclave.ta.source import FILE_NAME

READER = "developer-reader"


class RecipientSetUsed(msgspec.Struct, frozen=True):
    """The signed set that a device was given for an output."""

    version: int
    message: bytes


def make_missing_authorities(folder: Path, keys: Path, tell: Callable[[str], None]) -> None:
    """Makes the recipient and beacon authorities that `ta.toml` names and that are not in the key folder.

    What else is wrong with names and keys is left to `edgeclave.ta.source`, which says it better.
    """
    for name in _named_authorities(folder / FILE_NAME):
        try:
            missing = not public_key_path(keys, name).exists()
        except EdgeclaveError:
            continue
        if missing:
            key_or_new(keys, name)
            tell(f"made the key {name} for development: {public_key_path(keys, name)}")


def development_reader(keys: Path) -> ec.EllipticCurvePrivateKey:
    """The key that opens results while trying out; made on first use."""
    return key_or_new(keys, READER)


def recipient_set(
    name: str, output: Output, keys: Path, reader: ec.EllipticCurvePublicKey, last: RecipientSetUsed | None
) -> RecipientSetUsed | None:
    """A set that names the development reader for an output; `last` again where it still does.

    Returns:
        None when the private key of the output's authority is not in the key folder.
    """
    authority = _private_key_of(output.recipient_authority, keys)
    if authority is None:
        return None
    if last is None:
        return RecipientSetUsed(1, sign_recipient_set(name, 1, [reader], authority))
    with contextlib.suppress(ResultError):
        named = verify_recipient_set(last.message, authority.public_key()).keys
        if [spki(key) for key in named] == [spki(reader)]:
            return last
    # The device remembers the highest version it obeyed, whoever signed it.
    return RecipientSetUsed(last.version + 1, sign_recipient_set(name, last.version + 1, [reader], authority))


def _private_key_of(public: bytes, keys: Path) -> ec.EllipticCurvePrivateKey | None:
    for stored in list_keys(keys):
        if stored.private:
            key = load_private_key(private_key_path(keys, stored.name))
            if spki(key.public_key()) == public:
                return key
    return None


def _named_authorities(path: Path) -> Iterator[str]:
    try:
        value: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    outputs = value.get("outputs")
    tables = outputs.values() if isinstance(outputs, dict) else ()
    names = [table.get("recipient_authority") for table in tables if isinstance(table, dict)]
    yield from dict.fromkeys(name for name in [*names, value.get("beacon_authority")] if isinstance(name, str))
