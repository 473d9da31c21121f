"""`ta.toml`, the manifest as a developer writes it.

name = "anomaly"
version = "1.0.0"
product_id = 1
security_version = 1
services = ["emit", "storage", "log"]

[limits]
memory_mib = 128

[methods.observe]
channel = "any"
input_schema = "observe.schema.json"      # a file beside ta.toml

[outputs.anomalies]
recipient_authority = "reader-authority"  # a key in the key folder: reader-authority.pub.pem
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from edgeclave.cose import spki
from edgeclave.errors import ConfigurationError, EdgeclaveError, PackageError
from edgeclave.keys import load_public_key, public_key_path
from edgeclave.ta.manifest import (
    MAX_MANIFEST_BYTES,
    MAX_SCHEMA_BYTES,
    Channel,
    Label,
    Limits,
    Manifest,
    Method,
    Name,
    Output,
    Service,
    StorageProtection,
    Unsigned16,
    Version,
    field_error,
    manifest_error,
)

FILE_NAME = "ta.toml"
_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class _Method(msgspec.Struct, forbid_unknown_fields=True):
    channel: Channel = "any"
    input_schema: str | None = None
    output_schema: str | None = None


class _Output(msgspec.Struct, forbid_unknown_fields=True):
    recipient_authority: str


class _Named(msgspec.Struct):
    name: Name


class _Source(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: Name
    version: Version
    product_id: Unsigned16
    security_version: Unsigned16
    methods: dict[Label, Any]
    accept_state_from_svn: Unsigned16 | None = None
    debug: bool = False
    services: list[Service] = []
    limits: dict[str, Any] = {}
    outputs: dict[Label, Any] = {}
    beacon_authority: str | None = None
    storage_protection: StorageProtection = "consistent"


def load_source(path: Path, keys: Path) -> Manifest:
    """Reads `ta.toml` (or the one in a folder); names of authorities are files `<keys>/NAME.pub.pem`.

    Raises:
        PackageError: `bad-manifest`, with the field's path in `where` and advice.
        ConfigurationError: `no-manifest`, when there is no such file.
    """
    path = _file(path)
    with _in_file(path):
        return _manifest(_parse(path), path.parent, keys)


def read_name(path: Path) -> str:
    """The name in `ta.toml`, before anything else of it is looked at. Raises as `load_source` does."""
    path = _file(path)
    with _in_file(path):
        try:
            return msgspec.convert(_parse(path), _Named).name
        except msgspec.ValidationError as error:
            raise manifest_error(error) from None


def _file(path: Path) -> Path:
    return path / FILE_NAME if path.is_dir() else path


@contextlib.contextmanager
def _in_file(path: Path) -> Iterator[None]:
    """Names the file in errors that name the field."""
    try:
        yield
    except PackageError as error:
        place = error.where.removeprefix("manifest").removeprefix(": ")
        where = f"{path}: {place}" if place else str(path)
        raise PackageError(error.code, error.what, where=where, advice=error.advice) from error.__cause__


def read_regular(path: Path, most: int = -1) -> bytes:
    """At most so many bytes of a file. Raises OSError; for a pipe or a device too, which could go on for ever."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        return file.read(most)


def _parse(path: Path) -> dict[str, Any]:
    try:
        data = read_regular(path, MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            "no-manifest",
            f"the manifest cannot be read: {error.strerror}",
            where=str(path),
            advice="name the folder that holds ta.toml",
        ) from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise field_error("", f"it is over the limit of {MAX_MANIFEST_BYTES} bytes", "shorten it")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise field_error("", f"it is not TOML: {error}", "correct it at the place named") from error


def _manifest(value: dict[str, Any], folder: Path, keys: Path) -> Manifest:
    source = _convert(value, _Source, "")
    methods = {}
    for name, table in source.methods.items():
        method = _convert(table, _Method, f"methods.{name}")
        methods[name] = Method(
            method.channel,
            _schema(folder, method.input_schema, f"methods.{name}.input_schema"),
            _schema(folder, method.output_schema, f"methods.{name}.output_schema"),
        )
    outputs = {}
    for name, table in source.outputs.items():
        authority = _convert(table, _Output, f"outputs.{name}").recipient_authority
        outputs[name] = Output(_authority(keys, authority, f"outputs.{name}.recipient_authority"))
    beacon = source.beacon_authority
    manifest = Manifest(
        name=source.name,
        version=source.version,
        product_id=source.product_id,
        security_version=source.security_version,
        accept_state_from_svn=(
            source.security_version if source.accept_state_from_svn is None else source.accept_state_from_svn
        ),
        debug=source.debug,
        services=tuple(sorted(set(source.services))),
        limits=_convert(source.limits, Limits, "limits"),
        methods=methods,
        outputs=outputs,
        beacon_authority=_authority(keys, beacon, "beacon_authority") if beacon is not None else None,
        storage_protection=source.storage_protection,
    )
    manifest.check()
    return manifest


def _convert(value: Any, kind: type[_Struct], path: str) -> _Struct:
    if not isinstance(value, dict):
        raise field_error(path, "this is not a table", f"write it as [{path}]")
    known = list(get_type_hints(kind))
    for field in value:
        if field not in known:
            close = difflib.get_close_matches(field, known, n=1)
            advice = f"did you mean {close[0]}?" if close else f"known fields are: {', '.join(known)}"
            raise field_error(f"{path}.{field}".strip("."), f"there is no field {field}", advice)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise manifest_error(error, path) from None


def _schema(folder: Path, name: str | None, path: str) -> str | None:
    if name is None:
        return None
    file = folder / name
    try:
        text = read_regular(file, MAX_MANIFEST_BYTES + 1)
        if len(text) > MAX_MANIFEST_BYTES:
            raise field_error(path, f"{name} is over the limit of {MAX_MANIFEST_BYTES} bytes", "shorten it")
        value = json.loads(text.decode())
    except OSError as error:
        raise field_error(path, f"{name} cannot be read: {error.strerror}", "name a file beside ta.toml") from error
    except (ValueError, RecursionError) as error:
        raise field_error(path, f"{name} is not JSON: {error}", "write a JSON Schema") from error
    if not isinstance(value, dict):
        raise field_error(path, f"{name} is not a JSON Schema", "write an object")
    schema = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if len(schema.encode()) > MAX_SCHEMA_BYTES:
        raise field_error(path, f"{name} is over the limit of {MAX_SCHEMA_BYTES} bytes", "shorten it")
    return schema


def _authority(keys: Path, name: str, path: str) -> bytes:
    try:
        return spki(load_public_key(public_key_path(keys, name)))
    except EdgeclaveError as error:
        raise field_error(path, f"the key {name!r} cannot be used: {error.what}", error.advice) from error
