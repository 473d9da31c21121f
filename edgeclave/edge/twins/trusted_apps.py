"""What the module twin asks for, checked app by app: one that is wrong is refused with a reason, the others go on.

>>> desired = read_desired({"trustedApps": {"anomaly": {"package": "/packages/anomaly.ta"}}})
>>> desired.refused["anomaly"].code
'bad-trusted-app'
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any

import msgspec

from edgeclave.errors import ConfigurationError

MAX_TRUSTED_APPS = 16
"""Each is a process of about 100 MiB on the device, and about 1 KiB of reported properties (32 KiB in all)."""
MAX_RECIPIENT_SET_CHARACTERS = 16_384
MAX_BEACON_CHARACTERS = 4096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z")
_KNOWN = {"trustedApps", "beacon"}


class TrustedAppSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of `trustedApps`, as it stands in the twin."""

    package: Annotated[
        str, msgspec.Meta(min_length=1, max_length=2048, description="where the package is, in at most 2048 characters")
    ]
    digest: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^sha256:[0-9a-f]{64}\Z",
            description="sha256: and 64 hexadecimal digits, as `edgeclave ta sign` prints it",
        ),
    ]
    signer: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^[0-9a-f]{64}\Z", description="64 hexadecimal digits, as `edgeclave ta sign` prints them"
        ),
    ]
    platform: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] = "emulator"
    recipients: Annotated[dict[str, str], msgspec.Meta(max_length=64)] = {}

    def recipient_sets(self) -> dict[str, bytes]:
        """The signed recipient set of each output."""
        return {output: _base64url(text) for output, text in self.recipients.items()}

    def runs_same_code(self, other: TrustedAppSettings) -> bool:
        """Whether the two differ in nothing that needs a new enclave."""
        return (self.digest, self.signer, self.platform) == (other.digest, other.signer, other.platform)


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """The usable part of a twin and what is wrong with the rest.

    `problem` is about the twin as a whole; when `complete` is False too, `trusted_apps` is not the whole wish and
    nothing may be removed because of it.
    """

    trusted_apps: dict[str, TrustedAppSettings] = {}
    refused: dict[str, ConfigurationError] = {}
    beacon: bytes | None = None
    problem: ConfigurationError | None = None
    complete: bool = True


def read_desired(twin: dict[str, Any]) -> Desired:
    """Never raises: every fault becomes a reason."""
    beacon, problem = _read_beacon(twin.get("beacon"))
    unknown = sorted(set(twin) - _KNOWN)
    if unknown:
        problem = _wrong("unknown-twin-field", f"unknown desired property {unknown[0][:64]!r}", "desired", "remove it")
    entries = twin.get("trustedApps", {})
    if not isinstance(entries, dict):
        problem = _wrong("bad-twin", "trustedApps is not an object", "desired.trustedApps", "name each by its key")
        return Desired(beacon=beacon, problem=problem, complete=False)
    trusted_apps: dict[str, TrustedAppSettings] = {}
    refused: dict[str, ConfigurationError] = {}
    for name, entry in entries.items():
        if len(trusted_apps) + len(refused) >= MAX_TRUSTED_APPS:
            what = f"{len(entries)} trusted applications are over the limit of {MAX_TRUSTED_APPS}"
            problem = _wrong("too-many-trusted-apps", what, "desired.trustedApps", "the first ones run")
            break
        try:
            trusted_apps[name] = _read_settings(name, entry)
        except ConfigurationError as error:
            refused[name[:64]] = error
    return Desired(trusted_apps=trusted_apps, refused=refused, beacon=beacon, problem=problem)


def _read_settings(name: str, entry: Any) -> TrustedAppSettings:
    where = f"desired.trustedApps.{name[:64]}"
    if not _NAME.match(name):
        raise _wrong("bad-trusted-app-name", "a name has 1 to 63 letters, digits, - or _", where, "rename it")
    try:
        settings = msgspec.convert(entry, TrustedAppSettings)
    except msgspec.ValidationError as error:
        raise _wrong("bad-trusted-app", str(error)[:200], where, "correct this entry of the module twin") from None
    for output, text in settings.recipients.items():
        if not _BASE64URL.match(text) or len(text) > MAX_RECIPIENT_SET_CHARACTERS:
            raise _wrong(
                "bad-trusted-app",
                "a recipient set must be base64url without padding",
                f"{where}.recipients.{output[:64]}",
                "put there what `edgeclave recipients sign` prints",
            )
        try:
            _base64url(text)
        except binascii.Error:
            raise _wrong("bad-trusted-app", "a recipient set is cut off", where, "copy it again, whole") from None
    return settings


def _read_beacon(text: Any) -> tuple[bytes | None, ConfigurationError | None]:
    if text is None:
        return None, None
    if isinstance(text, str) and _BASE64URL.match(text) and len(text) <= MAX_BEACON_CHARACTERS:
        try:
            return _base64url(text), None
        except binascii.Error:
            pass
    return None, _wrong("bad-beacon", "the beacon is not base64url", "desired.beacon", "copy it again, whole")


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _wrong(code: str, what: str, where: str, advice: str) -> ConfigurationError:
    return ConfigurationError(code, what, where=where, advice=advice)
