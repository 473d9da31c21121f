"""The policy file: one TOML file that a person can read.

classes = ["emulated", "sgx"]       # classes of platform (PROTOCOL section 3)
debug = false                       # accept platforms and trusted applications that can be debugged
freshness = "beacon"                # nonce: only evidence we asked for; beacon: or bound to a beacon we published;
                                    # unknown: any age (refused unless named)
maximum_age_seconds = 86400         # since we issued the nonce or published the beacon

[[anchors]]                         # each of one kind and one class
kind = "emulator"
class = "emulated"
public_key = "attestation.pub.pem"  # a file next to this one, or the PEM text
device = "edge01"                   # IoT Hub device id bound to it at enrolment

[[anchors]]
kind = "sgx"
class = "sgx"
root = "intel-sgx-root"             # a vendor's root, built in by name

[[anchors]]
kind = "tdx"
class = "emulated"                  # stand-in hardware is never called anything else
test_root = "test-root.pem"         # its root's certificate or public key

[devices]                           # platforms under a root, bound at enrolment: device id = platform_instance
edge02 = ["d04ec06d4e6d92dc90d0ad3cf5ee2ddf"]

[runtime]                           # reference values of the code inside the enclave, per kind; no default
emulator = ["this-release"]         # or digests in hex

[[runtime.sgx]]                     # all of one table must match; one table is enough
mrsigner = "<64 hex digits>"
isvprodid = 1
minimum_isvsvn = 3

[[tcb.sgx]]                         # TCB statuses accepted besides "UpToDate"
status = "SWHardeningNeeded"
until = 2027-03-31                  # the last day on which it is accepted, UTC
advisories = ["INTEL-SA-00615"]     # no others may be open

[[trusted_apps]]                    # signer_id and product_id, or unique_id
signer_id = "<64 hex digits>"
product_id = 1
minimum_security_version = 1

[recipients.minimum_version]        # oldest recipient set per output that results may be sealed to
anomalies = 1
"""

from __future__ import annotations

import codecs
import datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from msgspec import Meta

from edgeclave.errors import ConfigurationError
from edgeclave.evidence.anchors import Anchor, PlatformClass, PublicKey
from edgeclave.evidence.kinds import KINDS
from edgeclave.evidence.policy import (
    DEFAULT_MAXIMUM_AGE_SECONDS,
    Freshness,
    Policy,
    TcbException,
    TrustedApp,
    bad_policy,
)
from edgeclave.evidence.reference import MINIMUM, AnyOf, Reference
from edgeclave.evidence.tee import INTEGER, Kind
from edgeclave.evidence.x509_errors import UNREADABLE
from edgeclave.wire import Count, Label, Unsigned16

THIS_RELEASE = "this-release"
MAX_POLICY_BYTES = 256 << 10
Seconds = Annotated[int, Meta(ge=1)]
HexDigest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
PlatformInstance = Annotated[str, Meta(pattern=r"\A([0-9a-f]{2}){8,64}\Z")]


class _AnchorEntry(msgspec.Struct, forbid_unknown_fields=True, rename={"platform_class": "class"}):
    kind: str
    platform_class: PlatformClass
    public_key: str | None = None
    root: str | None = None
    test_root: str | None = None
    device: str | None = None


class _TcbEntry(msgspec.Struct, forbid_unknown_fields=True):
    status: str
    until: datetime.date
    advisories: list[str]


class _TrustedAppEntry(msgspec.Struct, forbid_unknown_fields=True):
    signer_id: HexDigest | None = None
    product_id: Unsigned16 | None = None
    unique_id: HexDigest | None = None
    minimum_security_version: Unsigned16 = 0


class _RecipientsEntry(msgspec.Struct, forbid_unknown_fields=True):
    minimum_version: dict[Label, Count] = {}


class _PolicyFile(msgspec.Struct, forbid_unknown_fields=True):
    classes: list[PlatformClass]
    anchors: list[_AnchorEntry]
    runtime: dict[str, list[str | dict[str, str | int]]]
    trusted_apps: list[_TrustedAppEntry]
    tcb: dict[str, list[_TcbEntry]] = {}
    devices: dict[str, list[PlatformInstance]] = {}
    debug: bool = False
    freshness: Freshness = "beacon"
    maximum_age_seconds: Seconds = DEFAULT_MAXIMUM_AGE_SECONDS
    recipients: _RecipientsEntry = msgspec.field(default_factory=_RecipientsEntry)


def load_policy(path: Path) -> Policy:
    """Reads a policy file; files it names are looked for next to it.

    Raises:
        ConfigurationError: `no-such-file`, `bad-policy`, with the field.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            "no-such-file", "cannot read the policy", where=str(path), advice="make one with `edgeclave policy init`"
        ) from error
    if len(data) > MAX_POLICY_BYTES:
        raise bad_policy(str(path), f"over the limit of {MAX_POLICY_BYTES} bytes")
    try:
        parsed = msgspec.toml.decode(data.removeprefix(codecs.BOM_UTF8), type=_PolicyFile)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise bad_policy(str(path), str(error)) from error
    try:
        return _policy(parsed, path.parent)
    except ConfigurationError as error:
        raise bad_policy(f"{path}: {error.where}", error.what) from error


def _policy(parsed: _PolicyFile, folder: Path) -> Policy:
    for kind in parsed.tcb:
        _kind(f"tcb.{kind}", kind)
    return Policy(
        anchors=tuple(_anchor(entry, folder) for entry in parsed.anchors),
        runtime={
            kind: AnyOf(*(_reference(kind, value) for value in values)) for kind, values in parsed.runtime.items()
        },
        classes=frozenset(parsed.classes),
        trusted_apps=tuple(_trusted_app(entry) for entry in parsed.trusted_apps),
        tcb={kind: tuple(_tcb_exception(entry) for entry in entries) for kind, entries in parsed.tcb.items()},
        devices=_devices(parsed.devices),
        debug=parsed.debug,
        freshness=parsed.freshness,
        maximum_age_seconds=parsed.maximum_age_seconds,
        minimum_recipients=parsed.recipients.minimum_version,
    )


def _anchor(entry: _AnchorEntry, folder: Path) -> Anchor:
    if sum(each is not None for each in (entry.public_key, entry.root, entry.test_root)) != 1:
        raise bad_policy("anchors", "each must have exactly one of public_key, root and test_root")
    if entry.device is not None and entry.public_key is None:
        raise bad_policy("anchors.device", "many platforms verify under a root; bind each of them in [devices]")
    kind = _kind("anchors", entry.kind)
    if entry.root is not None:
        fingerprint = kind.roots.get(entry.root)
        if fingerprint is None:
            known = ", ".join(kind.roots) or "none"
            raise bad_policy("anchors.root", f"{entry.root} is no root of kind {entry.kind}; known: {known}")
        return Anchor(entry.kind, entry.platform_class, fingerprint, name=entry.root)
    if entry.test_root is not None:
        key = read_public_key("anchors.test_root", entry.test_root, folder)
        return Anchor(entry.kind, entry.platform_class, key, test=True)
    key = read_public_key("anchors.public_key", entry.public_key or "", folder)
    return Anchor(entry.kind, entry.platform_class, key, entry.device)


def read_public_key(where: str, text: str, folder: Path) -> PublicKey:
    """An EC or RSA key from PEM, of the key or a certificate, or from the file of that name.

    Raises:
        ConfigurationError: `bad-policy`.
    """
    try:
        pem = text.encode() if text.lstrip().startswith("-----BEGIN") else _key_file(folder / text)
        if b"-----BEGIN CERTIFICATE-----" in pem:
            key = x509.load_pem_x509_certificate(pem).public_key()
        else:
            key = serialization.load_pem_public_key(pem)  # type: ignore[assignment]
    except (OSError, *UNREADABLE) as error:
        raise bad_policy(where, f"not a PEM public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise bad_policy(where, "not an EC or RSA key")
    return key


def _key_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_POLICY_BYTES)


def _reference(kind: str, value: str | dict[str, str | int]) -> Reference:
    known = _kind(f"runtime.{kind}", kind)
    if isinstance(value, dict):
        return Reference({name: _register(known, name, text) for name, text in value.items()})
    if value == THIS_RELEASE:
        if known.this_release is None:
            raise bad_policy(f"runtime.{kind}", "this-release cannot be computed for it; name what is measured")
        return Reference(known.this_release())
    if len(known.identifying[0]) != 1:
        raise bad_policy(f"runtime.{kind}", f"use a table [[runtime.{kind}]] of {', '.join(known.registers)}")
    (register,) = known.identifying[0]
    return Reference({register: _register(known, register, value)})


def _register(kind: Kind, name: str, value: str | int) -> bytes | int:
    where = f"runtime.{kind.name}.{name}"
    size = kind.registers.get(name.removeprefix(MINIMUM))
    if size is None or (size != INTEGER and name.startswith(MINIMUM)):
        raise bad_policy(where, f"not measured for this kind; known are {', '.join(kind.registers)}")
    if size == INTEGER:
        if type(value) is not int or value < 0:
            raise bad_policy(where, "must be a number from 0 on")
        return value
    if not isinstance(value, str) or len(value) != 2 * size or set(value) - set("0123456789abcdef"):
        raise bad_policy(where, f"must be {2 * size} hex digits in lower case")
    return bytes.fromhex(value)


def _kind(where: str, name: str) -> Kind:
    if name not in KINDS:
        raise bad_policy(where, f"unknown kind {name!r}; known are {', '.join(KINDS)}")
    return KINDS[name]


def _tcb_exception(entry: _TcbEntry) -> TcbException:
    return TcbException(entry.status, entry.until, frozenset(entry.advisories))


def _devices(entries: dict[str, list[PlatformInstance]]) -> dict[bytes, str]:
    devices: dict[bytes, str] = {}
    for device, instances in entries.items():
        for instance in instances:
            if bytes.fromhex(instance) in devices:
                raise bad_policy(f"devices.{device}", f"platform {instance} is bound to two devices")
            devices[bytes.fromhex(instance)] = device
    return devices


def _trusted_app(entry: _TrustedAppEntry) -> TrustedApp:
    by_product = entry.signer_id is not None and entry.product_id is not None and entry.unique_id is None
    by_code = entry.unique_id is not None and entry.signer_id is None and entry.product_id is None
    if not by_product and not by_code:
        raise bad_policy("trusted_apps", "name either signer_id and product_id, or unique_id")
    return TrustedApp(
        None if entry.signer_id is None else bytes.fromhex(entry.signer_id),
        entry.product_id,
        None if entry.unique_id is None else bytes.fromhex(entry.unique_id),
        entry.minimum_security_version,
    )
