"""The manifest: what a trusted application declares and is granted. It is signed with the code (PROTOCOL section 2).

This is the form inside the package, a map in deterministic CBOR; `edgeclave.ta.source` reads the `ta.toml` a developer
writes. There is one encoding of a manifest: every field is present, absent options are left out, services are sorted,
and anything else is refused, because the hash of these bytes is the trusted application's identity.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta

from edgeclave.cose import dcbor, spki
from edgeclave.errors import PackageError

MAX_MANIFEST_BYTES = 256 << 10  # canonical CBOR; room for a schema for each of dozens of methods
MAX_SCHEMA_BYTES = 32 << 10  # one JSON Schema as text
MAX_METHODS = 64
MAX_OUTPUTS = 32

# storage-protection, caller and emulated only tell about the call and the platform, and need no grant.
Service = Literal["counter", "emit", "evidence", "host-time", "log", "random", "seal", "storage"]
Channel = Literal["any", "confidential", "authenticated"]
StorageProtection = Literal["consistent", "rollback-protected"]

_MISSING = re.compile(r"Object missing required field `(?P<field>\w+)`\Z")

Name = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9-]{0,62}\Z")]
Label = Annotated[str, Meta(pattern=r"\A[A-Za-z][A-Za-z0-9_-]{0,62}\Z")]
Version = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z.+_-]{0,62}\Z")]
Unsigned16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
Schema = Annotated[str, Meta(max_length=MAX_SCHEMA_BYTES)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one instance may use. The enclave enforces it; the defaults suit a Python trusted application."""

    memory_mib: Annotated[int, Meta(ge=16, le=1024)] = 128
    """Linear memory in MiB; 16 is the least a Python guest starts in."""
    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] = 5_000
    """Longest time one call may take."""
    message_kib: Annotated[int, Meta(ge=1, le=1024)] = 256
    """Largest payload, reply and emitted result, each, in KiB of UTF-8."""


class Method(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A method and the least protected channel it may be called over. Schemas are JSON Schema as JSON text."""

    channel: Channel = "any"
    input_schema: Schema | None = None
    output_schema: Schema | None = None


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stream of sealed results. Only recipient sets signed by `recipient_authority` (P-256 SPKI, DER) are obeyed."""

    recipient_authority: bytes


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See the module. `name` and `version` are labels; identity is the signer and `product_id`.

    `accept_state_from_svn` is the lowest security version whose sealed state this one still reads.
    `storage_protection` is the least the platform must offer, else the trusted application does not start.
    """

    name: Name
    version: Version
    product_id: Unsigned16
    security_version: Unsigned16
    accept_state_from_svn: Unsigned16
    debug: bool = False
    services: tuple[Service, ...] = ()
    limits: Limits = Limits()
    methods: dict[Label, Method]
    outputs: dict[Label, Output] = {}
    beacon_authority: bytes | None = None
    storage_protection: StorageProtection = "consistent"

    def to_map(self) -> dict[str, Any]:
        """The map that is signed; encode it with `edgeclave.cose.dcbor`."""
        value: dict[str, Any] = _without_none(msgspec.to_builtins(self, builtin_types=(bytes,)))
        value["services"] = sorted(set(self.services))
        return value

    @classmethod
    def from_map(cls, value: object) -> Manifest:
        """Reads the signed map.

        Raises:
            PackageError: `bad-manifest`, with the field path in `where`.
        """
        try:
            manifest = msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise manifest_error(error) from None
        manifest.check()
        # Defaults left out, unsorted services or a converted type: the same meaning in other bytes, another identity.
        # Compared as CBOR, since Python holds 1, 1.0 and True for equal.
        if dcbor(manifest.to_map()) != dcbor(value):
            raise PackageError(
                "bad-manifest", "the manifest is not in its one accepted form", advice="sign it again with `ta sign`"
            )
        return manifest

    def check(self) -> None:
        """What types cannot say. Raises PackageError `bad-manifest`."""
        if not self.methods:
            raise field_error("methods", "there is no method, so nothing could be called", "add [methods.NAME]")
        for field, entries, most in (("methods", self.methods, MAX_METHODS), ("outputs", self.outputs, MAX_OUTPUTS)):
            if len(entries) > most:
                raise field_error(field, f"{len(entries)} entries are over the limit of {most}", "declare fewer")
        if self.accept_state_from_svn > self.security_version:
            raise field_error(
                "accept_state_from_svn",
                f"{self.accept_state_from_svn} is above security_version {self.security_version}",
                "name a security version that is not above its own",
            )
        for name, output in self.outputs.items():
            _check_authority(f"outputs.{name}.recipient_authority", output.recipient_authority)
        if self.beacon_authority is not None:
            _check_authority("beacon_authority", self.beacon_authority)
        size = len(dcbor(self.to_map()))
        if size > MAX_MANIFEST_BYTES:
            raise field_error("", f"{size} bytes are over the limit of {MAX_MANIFEST_BYTES}", "shorten the schemas")


def field_error(path: str, what: str, advice: str) -> PackageError:
    """The one error a broken manifest gives; `path` is dotted, empty for the whole."""
    return PackageError("bad-manifest", what, where=f"manifest: {path}" if path else "manifest", advice=advice)


def manifest_error(error: msgspec.ValidationError, prefix: str = "") -> PackageError:
    """Turns msgspec's `... - at `$.limits.memory_mib`` into a field error; `prefix` is the path of `$`."""
    what, _, at = str(error).partition(" - at ")
    key_of = at.startswith("`key` in ")  # the name of an entry, not its value
    path = f"{prefix}{at.removeprefix('`key` in ').strip('`').removeprefix('$')}".strip(".")
    missing = _MISSING.match(what)
    if missing:
        name = missing["field"]
        return field_error(f"{path}.{name}".strip("."), f"the field {name} is missing", f"add `{name}`")
    subject = "a name in it: " if key_of else ""
    return field_error(
        path, subject + what, "correct it; docs/formats-package.md lists every field with its type and range"
    )


def _check_authority(path: str, der: bytes) -> None:
    try:
        key = serialization.load_der_public_key(der)
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("another kind of key")  # noqa: TRY301, TRY004
        if spki(key) != der:
            raise ValueError("another encoding")  # noqa: TRY301
    except (ValueError, UnsupportedAlgorithm):
        raise field_error(
            path, "this is not a P-256 public key (SPKI, DER)", "name a key made by `edgeclave keys new`"
        ) from None


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
