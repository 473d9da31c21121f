"""Shared access signatures: the tokens with which devices, modules and service clients prove a symmetric key.

`SharedAccessSignature sr=<resource>&sig=<base64 HMAC-SHA256 of "sr\\nse">&se=<expiry>[&skn=<policy>]`
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from urllib.parse import quote_plus, unquote

from edgeclave.simulator.hub_errors import HubError

PREFIX = "SharedAccessSignature "
MAX_TOKEN_CHARACTERS = 4096
_FIELDS = {"sr", "sig", "se", "skn"}


@dataclass(frozen=True)
class SharedAccessSignature:
    """A parsed token. Nothing in it is trusted before `check`."""

    signed_resource: str
    signature: bytes
    expiry: int
    policy: str

    @property
    def resource(self) -> str:
        return unquote(self.signed_resource)

    @classmethod
    def parse(cls, token: str) -> SharedAccessSignature:
        """Raises HubError 401 when it is not a well formed token."""
        if len(token) > MAX_TOKEN_CHARACTERS or not token.startswith(PREFIX):
            raise _unauthorized("there is no shared access signature")
        fields: dict[str, str] = {}
        for part in token.removeprefix(PREFIX).split("&"):
            name, _, value = part.partition("=")
            if name not in _FIELDS or name in fields:
                raise _unauthorized("the shared access signature has unknown or repeated fields")
            fields[name] = value
        try:
            return cls(
                fields["sr"],
                base64.b64decode(unquote(fields["sig"]), validate=True),
                int(fields["se"]),
                fields.get("skn", ""),
            )
        except (KeyError, ValueError) as error:
            raise _unauthorized("the shared access signature is malformed") from error

    def check(self, keys: Iterable[str], *, hosts: Collection[str], path: str = "", now: float | None = None) -> None:
        """Checks expiry, resource and signature.

        Args:
            keys: base64 keys, any of which may have signed.
            hosts: accepted host names; a port after the host in the token is ignored, as clients put it there.
            path: what must follow the host, e.g. `/devices/edge01/modules/m`; empty for the whole hub.

        Raises:
            HubError: 401.
        """
        if self.expiry <= (time.time() if now is None else now):
            raise _unauthorized("the shared access signature has expired")
        host, slash, rest = self.resource.lower().partition("/")
        if host.partition(":")[0] not in hosts or slash + rest != path.lower():
            raise _unauthorized("the shared access signature is for another resource")
        data = f"{self.signed_resource}\n{self.expiry}".encode()
        matches = [hmac.compare_digest(self.signature, sign(key, data)) for key in keys]
        if not any(matches):
            raise _unauthorized("the signature does not match any key of this identity")


def sign(key: str, data: bytes) -> bytes:
    """HMAC-SHA256 with a base64 key."""
    return hmac.digest(base64.b64decode(key), data, hashlib.sha256)


def make_token(resource: str, key: str, *, ttl_seconds: int = 3600, policy: str = "") -> str:
    """A token as the SDKs make it."""
    encoded = quote_plus(resource)
    expiry = int(time.time()) + ttl_seconds
    signature = quote_plus(base64.b64encode(sign(key, f"{encoded}\n{expiry}".encode())))
    return f"{PREFIX}sr={encoded}&sig={signature}&se={expiry}" + (f"&skn={policy}" if policy else "")


def _unauthorized(what: str) -> HubError:
    return HubError(401, "IotHubUnauthorizedAccess", what, advice="check host name, key, and the clock")
