"""How a registry's challenge is answered.

- **Basic**: user and password with each request.
- **Bearer** (docker's token authentication): an access token for one repository, asked for at the challenge's realm,
  without credentials, with Basic ones, or with a refresh token (`grant_type=refresh_token`).
- **Azure Container Registry** is Bearer with two more habits. The user 00000000-0000-0000-0000-000000000000 stands for
  a refresh token (`az acr login --expose-token`); where its secret is an access token of Microsoft Entra ID instead,
  that one is exchanged for a refresh token first (`/oauth2/exchange`).

Credentials go to the realm that the registry names, as with docker: who answers as the registry, with its certificate,
could ask for them itself. A token of Entra ID is worth more than one registry, so it goes to the registry's own host
and to no other.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from yarl import URL

from edgeclave.registry.challenge import Challenge
from edgeclave.registry.credentials import Credentials
from edgeclave.registry.errors import RegistryError, bad_answer
from edgeclave.registry.reference import Reference

TOKEN_USER = "00000000-0000-0000-0000-000000000000"  # noqa: S105 - a user's name
CLIENT_ID = "edgeclave"
SHORTEST_LIFE_SECONDS = 60
"""What a token lives that does not say so (docker's token specification)."""
MARGIN_SECONDS = 10
"""A token is not used in its last seconds."""
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,65536}\Z")


@dataclass(frozen=True)
class TokenAnswer:
    """What a token endpoint answered."""

    status: int
    body: bytes


Ask = Callable[[str, URL, Mapping[str, str], Mapping[str, str] | None], Awaitable[TokenAnswer]]
"""Method, address, headers, form: a request without authorization of its own that follows no redirect."""


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: float | None = None


class Authentication:
    """The Authorization header for one repository. A token is asked for once, and used until it runs out."""

    def __init__(self, reference: Reference, actions: str, credentials: Credentials | None, ask: Ask) -> None:
        self._reference = reference
        self._actions = actions
        self._credentials = credentials
        self._ask = ask
        self._header: str | None = None
        self._expires = 0.0
        self._refresh_token: str | None = None

    @property
    def header(self) -> str | None:
        """What to send; None while nothing was asked for."""
        return self._header if time.monotonic() < self._expires else None

    async def answer(self, challenges: list[Challenge], realm_of: Callable[[str], URL]) -> None:
        """Gets ready for the next request.

        Args:
            challenges: of a 401.
            realm_of: makes an address of a realm, or refuses it.

        Raises:
            RegistryError: `registry-login`, `registry-bad-answer`, `registry-insecure`, or the endpoint's.
        """
        offered = {challenge.scheme: challenge.parameters for challenge in reversed(challenges)}
        if "bearer" in offered:
            self._header, life = await self._bearer(offered["bearer"], realm_of)
            self._expires = time.monotonic() + max(life - MARGIN_SECONDS, 1)
        elif "basic" in offered:
            if self._credentials is None or self._credentials.is_token:
                raise self.refused("wants a user and a password")
            self._header, self._expires = _basic(self._credentials), float("inf")
        else:
            raise bad_answer("it wants to be logged in to, and offers neither Basic nor Bearer", self._reference.host)

    def refused(self, why: str) -> RegistryError:
        """The error of a registry that does not let us in."""
        host = self._reference.host
        tried = "refused the credentials" if self._credentials is not None else "wants credentials, and there are none"
        return RegistryError(
            "registry-login",
            f"the registry {tried}: {why}",
            where=str(self._reference),
            advice=f"run `docker login {host}`, or give --username and --password-stdin; on a device, see that the "
            "config.json in the registry folder is that of a user who may do this",
        )

    async def _bearer(self, parameters: Mapping[str, str], realm_of: Callable[[str], URL]) -> tuple[str, float]:
        realm = realm_of(parameters.get("realm", ""))
        scope = parameters.get("scope") or f"repository:{self._reference.repository}:{self._actions}"
        query = {"scope": scope[:1024], **({"service": parameters["service"]} if "service" in parameters else {})}
        refresh_token = await self._refresh(realm, query)
        if refresh_token is not None:
            form = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": refresh_token, **query}
            answer = await self._ask("POST", realm, {}, form)
        else:
            headers = {} if self._credentials is None else {"Authorization": _basic(self._credentials)}
            answer = await self._ask("GET", realm.extend_query(query), headers, None)
        token = self._read(answer, realm)
        text = token.token or token.access_token
        if not _PRINTABLE.match(text):
            raise bad_answer("the token's endpoint gave no token", str(realm))
        return f"Bearer {text}", SHORTEST_LIFE_SECONDS if token.expires_in is None else token.expires_in

    async def _refresh(self, realm: URL, query: Mapping[str, str]) -> str | None:
        """The refresh token to use, where the credentials are one or can be exchanged for one."""
        if self._credentials is None:
            return None
        if self._credentials.is_token:
            return self._credentials.secret
        if self._credentials.username != TOKEN_USER:
            return None
        tenant = entra_tenant(self._credentials.secret)
        if tenant is None:
            return self._credentials.secret
        if self._refresh_token is None:
            if realm.authority != self._reference.api_host:
                raise bad_answer("it wants a token of Microsoft Entra ID sent to another host", str(realm))
            form = {
                "grant_type": "access_token",
                "service": query.get("service", self._reference.host),
                "tenant": tenant,
                "access_token": self._credentials.secret,
            }
            answer = await self._ask("POST", realm.with_path("/oauth2/exchange"), {}, form)
            self._refresh_token = self._read(answer, realm).refresh_token
            if not self._refresh_token:
                raise bad_answer("the exchange gave no refresh token", str(realm))
        return self._refresh_token

    def _read(self, answer: TokenAnswer, realm: URL) -> _Token:
        if answer.status in (400, 401, 403):
            raise self.refused(f"{realm.host} answers {answer.status}")
        if answer.status != 200:
            raise bad_answer(f"the token's endpoint answers {answer.status}", str(realm))
        try:
            return msgspec.json.decode(answer.body, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise bad_answer("the token's endpoint does not answer with a token", str(realm)) from None


def entra_tenant(secret: str) -> str | None:
    """The tenant of an access token of Microsoft Entra ID; None for anything else, a registry's refresh token too.

    Only to choose the way: nothing is believed because of it.
    """
    parts = secret.split(".")
    if len(parts) != 3:
        return None
    try:
        claims: Any = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    tenant = claims.get("tid") if isinstance(claims, dict) and claims.get("grant_type") != "refresh_token" else None
    return tenant if isinstance(tenant, str) else None


def _basic(credentials: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{credentials.username}:{credentials.secret}".encode()).decode()
