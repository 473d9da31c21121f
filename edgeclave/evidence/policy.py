"""Which evidence a relying party accepts. Deny by default: what the policy does not name is refused.

A policy is one TOML file (`edgeclave policy init` writes a commented one), or a `Policy` value:

    classes = ["emulated"]              # classes of platform (PROTOCOL section 3)
    debug = false                       # accept trusted applications that can be debugged
    freshness = "beacon"                # nonce: only evidence we asked for; beacon: or bound to a beacon we published;
                                        # unknown: any age (refused unless named)
    maximum_age_seconds = 86400         # since we issued the nonce or published the beacon

    [[anchors]]                         # keys, each of one kind and one class
    kind = "emulator"
    class = "emulated"
    public_key = "attestation.pub.pem"  # a file next to this one, or the PEM text
    device = "edge01"                   # IoT Hub device id bound to it at enrolment

    [runtime]                           # reference values of the code inside the enclave, per kind; no default
    emulator = ["this-release"]         # or SHA-256 digests in hex

    [[trusted_apps]]                    # signer_id and product_id, or unique_id
    signer_id = "<64 hex digits>"
    product_id = 1
    minimum_security_version = 1

    [recipients.minimum_version]        # oldest recipient set per output that results may be sealed to
    anomalies = 1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta

from edgeclave.errors import ConfigurationError
from edgeclave.evidence.anchors import Anchor, PlatformClass
from edgeclave.evidence.kinds import KINDS
from edgeclave.ta.identity import Identity
from edgeclave.wire import Count, Label, Unsigned16

Freshness = Literal["nonce", "beacon", "unknown"]
Seconds = Annotated[int, Meta(ge=1)]
HexDigest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
RuntimeValue = Annotated[str, Meta(pattern=r"\A([0-9a-f]{64}|this-release)\Z")]
THIS_RELEASE = "this-release"
DEFAULT_MAXIMUM_AGE_SECONDS = 86_400
MAX_POLICY_BYTES = 256 << 10


@dataclass(frozen=True)
class TrustedApp:
    """Accepts one unique_id, or every version of a product from `minimum_security_version` on."""

    signer_id: bytes | None = None
    product_id: int | None = None
    unique_id: bytes | None = None
    minimum_security_version: int = 0

    def names(self, identity: Identity) -> bool:
        """Whether the rule is about this trusted application, whatever its security version."""
        if self.unique_id is not None:
            return self.unique_id == identity.unique_id
        return (self.signer_id, self.product_id) == (identity.signer_id, identity.product_id)


@dataclass(frozen=True)
class Policy:
    """`runtime` maps a kind to the digests accepted for it; `minimum_recipients` an output to a version."""

    anchors: tuple[Anchor, ...]
    runtime: Mapping[str, frozenset[bytes]]
    classes: frozenset[PlatformClass]
    trusted_apps: tuple[TrustedApp, ...]
    debug: bool = False
    freshness: Freshness = "beacon"
    maximum_age_seconds: int = DEFAULT_MAXIMUM_AGE_SECONDS
    minimum_recipients: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigurationError `bad-policy` when an anchor is ambiguous or could never verify anything."""
        if len({anchor.thumbprint for anchor in self.anchors}) != len(self.anchors):
            raise _bad("anchors", "one key stands in two anchors; a key has one kind and one class")
        for anchor in self.anchors:
            if anchor.kind not in KINDS:
                raise _bad("anchors", f"unknown kind {anchor.kind!r}; known are {', '.join(KINDS)}")
            if anchor.platform_class not in KINDS[anchor.kind].classes:
                raise _bad("anchors", f"an anchor of kind {anchor.kind} cannot vouch for class {anchor.platform_class}")
            if not self.runtime.get(anchor.kind):
                raise _bad("runtime", f"no runtime reference value for kind {anchor.kind}")


class _AnchorEntry(msgspec.Struct, forbid_unknown_fields=True, rename={"platform_class": "class"}):
    kind: str
    platform_class: PlatformClass
    public_key: str
    device: str | None = None


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
    runtime: dict[str, list[RuntimeValue]]
    trusted_apps: list[_TrustedAppEntry]
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
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            "no-such-file", "cannot read the policy", where=str(path), advice="make one with `edgeclave policy init`"
        ) from error
    if len(data) > MAX_POLICY_BYTES:
        raise _bad(str(path), f"{len(data)} bytes is over the limit of {MAX_POLICY_BYTES}")
    try:
        file = msgspec.toml.decode(data, type=_PolicyFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _bad(str(path), str(error)) from error
    return Policy(
        anchors=tuple(_anchor(entry, path.parent) for entry in file.anchors),
        runtime={kind: frozenset(_runtime(kind, value) for value in values) for kind, values in file.runtime.items()},
        classes=frozenset(file.classes),
        trusted_apps=tuple(_trusted_app(entry) for entry in file.trusted_apps),
        debug=file.debug,
        freshness=file.freshness,
        maximum_age_seconds=file.maximum_age_seconds,
        minimum_recipients=file.recipients.minimum_version,
    )


def _anchor(entry: _AnchorEntry, folder: Path) -> Anchor:
    try:
        is_text = entry.public_key.lstrip().startswith("-----BEGIN")
        pem = entry.public_key.encode() if is_text else (folder / entry.public_key).read_bytes()
        key = serialization.load_pem_public_key(pem)
    except (OSError, ValueError) as error:
        raise _bad("anchors.public_key", f"not a PEM public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad("anchors.public_key", "not a P-256 key")
    return Anchor(entry.kind, entry.platform_class, key, entry.device)


def _runtime(kind: str, value: str) -> bytes:
    if value != THIS_RELEASE:
        return bytes.fromhex(value)
    known = KINDS.get(kind)
    if known is None or known.this_release is None:
        raise _bad(f"runtime.{kind}", "only a digest in hex can be named here")
    return known.this_release()


def _trusted_app(entry: _TrustedAppEntry) -> TrustedApp:
    by_product = entry.signer_id is not None and entry.product_id is not None and entry.unique_id is None
    by_code = entry.unique_id is not None and entry.signer_id is None and entry.product_id is None
    if not by_product and not by_code:
        raise _bad("trusted_apps", "name either signer_id and product_id, or unique_id")
    return TrustedApp(
        None if entry.signer_id is None else bytes.fromhex(entry.signer_id),
        entry.product_id,
        None if entry.unique_id is None else bytes.fromhex(entry.unique_id),
        entry.minimum_security_version,
    )


def _bad(where: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        "bad-policy", what, where=where, advice="see `edgeclave policy init --help` for a complete one"
    )
