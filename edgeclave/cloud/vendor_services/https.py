"""One HTTP service, asked politely and believed in nothing: limits on sizes and times, and no way to another host."""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from edgeclave.edge.backoff import Backoff
from edgeclave.errors import ConfigurationError, EdgeclaveError
from edgeclave.evidence.endorsements import MAX_ENDORSEMENT_BYTES

ATTEMPTS = 4  # at one document, if the service is busy or cannot be reached
REQUEST_SECONDS = 20.0  # from the name to the last byte; the largest document has 20 KiB
LONGEST_WAIT_SECONDS = 60.0  # that a busy service may ask for; AMD's asks for up to 20
MAX_ANSWER_BYTES = MAX_ENDORSEMENT_BYTES
MAX_HEADER_BYTES = 16 << 10  # an issuer chain stands URL-encoded in one header, 3 KiB
_BUSY = (429, 503)
_NOT_FOUND = (400, 404)  # AMD and some caches answer 400 to a platform that they do not know


@dataclass(frozen=True)
class Answer:
    """A document and its headers, by lower-case name."""

    body: bytes
    headers: Mapping[str, str]


class VendorService:
    """Asks one service. Use it with `async with`.

    Args:
        url: with a path at most.
        ca: PEM certificates to trust instead of the public ones.
        schemes: https; also http where nothing needs protection on its way, since it is signed.
        first_wait_seconds: before the second attempt, where the service does not say.

    Raises:
        ConfigurationError: `bad-url`, `no-such-file`.
    """

    def __init__(
        self,
        url: str,
        ca: Path | None = None,
        *,
        schemes: tuple[str, ...] = ("https",),
        first_wait_seconds: float = 1.0,
    ) -> None:
        self.url = _checked(url, schemes)
        self._context = _context(ca)
        self._first_wait = first_wait_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._context),
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=True,  # HTTPS_PROXY, behind which many operators live
            max_field_size=MAX_HEADER_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, path: str, what: str) -> Answer:
        """Args:
            path: below the service's URL, with its query.
            what: the document, for people.

        Raises:
            EdgeclaveError: `not-published`, `service-busy`, `service-unreachable`, `unexpected-answer`.
        """
        return await self._answer("GET", path, what)

    async def post(self, body: bytes, content_type: str, what: str) -> Answer:
        """Sends `body` to the service's URL itself; otherwise as `get`."""
        return await self._answer("POST", "", what, data=body, headers={"Content-Type": content_type})

    async def _answer(self, method: str, path: str, what: str, **content: Any) -> Answer:
        backoff = Backoff(first_seconds=self._first_wait, longest_seconds=LONGEST_WAIT_SECONDS)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await self._ask(method, path, what, content)
            except (aiohttp.ClientConnectionError, TimeoutError) as error:
                if isinstance(error, aiohttp.ClientSSLError) or attempt == ATTEMPTS:
                    raise self._unreachable(what, error) from error
                answer = backoff.next_seconds()
            except (aiohttp.ClientError, ValueError) as error:
                raise self._unexpected(what, str(error)[:200]) from error
            if isinstance(answer, Answer):
                return answer
            wait = backoff.next_seconds() if answer is None else answer
            if wait > LONGEST_WAIT_SECONDS or attempt == ATTEMPTS:
                break
            await asyncio.sleep(wait)
        raise EdgeclaveError(
            "service-busy",
            f"the service is too busy to send {what}" + (f", and asks to wait {wait:.0f} s" if answer else ""),
            where=self.url,
            advice="try again later; nothing was stored",
        )

    async def _ask(self, method: str, path: str, what: str, content: dict[str, Any]) -> Answer | float | None:
        """The document; or how long the busy service asks to wait, in s, None where it does not say."""
        assert self._session is not None
        async with self._session.request(method, self.url + path, allow_redirects=False, **content) as response:
            if response.status in _BUSY:
                return _retry_after(response.headers.get("Retry-After"))
            if response.status in _NOT_FOUND:
                raise EdgeclaveError(
                    "not-published",
                    f"the service has no {what}",
                    where=self.url + path,
                    advice="check that the platform is a production one, and of this vendor",
                )
            if response.status != 200:
                raise self._unexpected(what, f"it answers with status {response.status}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise self._unexpected(what, "its answer is compressed, which was not asked for")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise self._unexpected(what, f"its answer is over the limit of {MAX_ANSWER_BYTES} bytes")
            return Answer(bytes(body), {name.lower(): value for name, value in response.headers.items()})

    def _unexpected(self, what: str, why: str) -> EdgeclaveError:
        return unexpected_answer(self.url, f"the service did not send {what}: {why}")

    def _unreachable(self, what: str, error: Exception) -> EdgeclaveError:
        why = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        return EdgeclaveError(
            "service-unreachable",
            f"cannot fetch {what}: {why}",
            where=self.url,
            advice="check the network and the address, and --ca for a service with certificates of your own",
        )


def unexpected_answer(where: str, what: str) -> EdgeclaveError:
    return EdgeclaveError(
        "unexpected-answer",
        what,
        where=where,
        advice="check that the address is that of such a service; nothing was stored",
    )


def _retry_after(text: str | None) -> float | None:
    """RFC 9110 section 10.2.3: seconds, or a date."""
    if text is None:
        return None
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _checked(url: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc or not url.isascii():
        raise ConfigurationError(
            "bad-url",
            f"a service is named by {schemes[0]}://HOST[:PORT][/PATH]",
            where=url[:200],
            advice="correct the address",
        )
    return url.rstrip("/")


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        what = "it holds no PEM certificates" if isinstance(error, ssl.SSLError) else f"cannot read: {error.strerror}"
        raise ConfigurationError(
            "no-such-file",
            what,
            where=f"--ca {ca}",
            advice="name a file of PEM certificates, or leave it out where the service has a public certificate",
        ) from error
