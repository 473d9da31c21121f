"""Who may read: SASL and shared access signatures as Event Hubs takes them.

A connection is anonymous until a token was put on `$cbs`, or authenticated for the whole hub by SASL PLAIN with the
key's name and the key itself.

A token is `SharedAccessSignature sr=<resource>&sig=<signature>&se=<expiry>&skn=<key name>`; the signature is
HMAC-SHA-256 over resource and expiry under the key's own text (Event Hubs does not base64-decode it first).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from edgeclave.simulator.amqp.types import UNAUTHORIZED, AmqpError

ANONYMOUS, PLAIN, CLAIMS_BASED = "ANONYMOUS", "PLAIN", "MSSBCBS"
MAX_TOKEN_CHARACTERS = 4096
SAS_TOKEN_TYPE = "servicebus.windows.net:sastoken"  # noqa: S105


@dataclass(frozen=True)
class SharedAccessKeys:
    """A hub's access policies that may read: their names and keys as they stand in a connection string.

    A token that names none is taken for one of the first.
    """

    hub_name: str
    keys: Mapping[str, str] = field(repr=False)

    def check_plain(self, response: bytes | None) -> bool:
        """SASL PLAIN, RFC 4616: [authorization id] NUL authentication id NUL password."""
        parts = (response or b"").split(b"\0")
        if len(parts) != 3:
            return False
        key = self.keys.get(parts[1].decode("utf-8", "replace"))
        return key is not None and hmac.compare_digest(parts[2], key.encode())

    def check_token(self, token: str, audience: str, *, now: float | None = None) -> int:
        """Until when (seconds since 1970) the token opens `audience`.

        Raises:
            AmqpError: `amqp:unauthorized-access`, saying which part was wrong.
        """
        scheme, _, rest = token[: MAX_TOKEN_CHARACTERS + 1].partition(" ")
        fields = dict(parse_qsl(rest, keep_blank_values=True))
        raw = dict(part.partition("=")[::2] for part in rest.split("&"))
        if (
            len(token) > MAX_TOKEN_CHARACTERS
            or scheme != "SharedAccessSignature"
            or not {"sr", "sig", "se"} <= set(raw)
        ):
            raise AmqpError(UNAUTHORIZED, "the token is not a SharedAccessSignature with sr, sig and se")
        key = self.keys.get(fields.get("skn") or next(iter(self.keys)))
        if key is None:
            raise AmqpError(UNAUTHORIZED, "the token names no policy of this hub that may read")
        signature = hmac.new(key.encode(), f"{raw['sr']}\n{raw['se']}".encode(), hashlib.sha256).digest()
        if not hmac.compare_digest(base64.b64encode(signature), unquote(raw["sig"]).encode()):
            raise AmqpError(UNAUTHORIZED, "the token's signature does not verify")
        expiry = int(raw["se"]) if raw["se"].isascii() and raw["se"].isdecimal() else 0
        if expiry <= (time.time() if now is None else now):
            raise AmqpError(UNAUTHORIZED, "the token has expired")
        if not self._covers(fields["sr"], audience):
            raise AmqpError(UNAUTHORIZED, "the token is for another resource")
        return expiry

    def _covers(self, resource: str, audience: str) -> bool:
        granted, wanted = node_path(resource), node_path(audience)
        return wanted[:1] == [self.hub_name.lower()] and wanted[: len(granted)] == granted


def node_path(uri: str) -> list[str]:
    """The node that an address (hub/ConsumerGroups/g) or a URI (sb://host/hub) names, in lower case, for comparing."""
    return [part for part in urlsplit(uri.lower()).path.split("/") if part]
