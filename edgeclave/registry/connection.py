"""Requests to one repository of one registry.

Rules:

1. Plain HTTP only to this machine itself (`localhost`), or where the caller says so; no redirect, realm or upload leads
   to plain HTTP otherwise.
2. The Authorization header goes to the registry's own host and port and to nobody else, whoever it redirects to.
3. A 401 of the registry's own host is answered, once for each request.
4. What may pass within seconds (429, 5xx, a broken connection) is tried again, a bounded number of times in a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from yarl import URL

from edgeclave.registry import answers
from edgeclave.registry.challenge import parse_challenges
from edgeclave.registry.credentials import Credentials
from edgeclave.registry.errors import RegistryError, bad_answer, insecure
from edgeclave.registry.limits import RegistryLimits
from edgeclave.registry.patience import Patience
from edgeclave.registry.reference import Reference, is_loopback
from edgeclave.registry.tokens import Authentication, TokenAnswer

T = TypeVar("T")


@dataclass(frozen=True)
class RegistryAccess:
    """How a registry is reached.

    Args:
        authority: PEM certificates that are trusted besides those of the system.
        plain_http: without TLS, also to other machines.
    """

    credentials: Credentials | None = None
    authority: Path | None = None
    plain_http: bool = False
    limits: RegistryLimits = field(default_factory=RegistryLimits)


@dataclass(frozen=True)
class Answer:
    """A small answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """Use it with `async with`. `actions` is what is to be done: `pull` or `pull,push`."""

    def __init__(self, reference: Reference, access: RegistryAccess, actions: str) -> None:
        self.reference = reference
        self.limits = access.limits
        self._access = access
        self._plain = access.plain_http or (reference.is_local and access.authority is None)
        self._base = URL(f"{'http' if self._plain else 'https'}://{reference.api_host}/v2/{reference.repository}/")
        self._authentication = Authentication(reference, actions, access.credentials, self._ask)
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a blob is counted and hashed as it is
            headers={"User-Agent": "edgeclave", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    def url(self, path: str) -> URL:
        """An address below that of the repository, as in `blobs/sha256:...`."""
        return URL(f"{self._base}{path}", encoded=True)

    async def call(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | memoryview | None = None,
        most: int | None = None,
        expect: tuple[int, ...] = (200,),
        again: bool = True,
    ) -> Answer:
        """One small answer.

        Args:
            most: bytes of the answer.
            expect: every other status is an error.
            again: whether to try again what may pass within seconds.

        Raises:
            RegistryError: see the package's documentation.
        """

        async def once() -> Answer:
            seconds = self.limits.answer_seconds + self._sending_seconds(data)
            async with asyncio.timeout(seconds), self.open(method, url, headers or {}, data) as got:
                return await self._read(got, method, most, expect)

        return await self.patiently(once) if again else await self._in_time(once)

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeats an attempt whose failure may pass within seconds."""
        patience = Patience(self.limits)
        while True:
            try:
                return await self._in_time(attempt)
            except RegistryError as error:
                await patience.rest(error)

    @contextlib.asynccontextmanager
    async def open(
        self, method: str, url: URL, headers: Mapping[str, str], data: bytes | memoryview | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One attempt of a request, with authorization and redirects; its answer may be of any status but 401.

        Raises:
            RegistryError: also for what goes wrong while the block reads the answer.
        """
        with self._understood(url):
            response = await self._send(method, url, headers, data)
            if response.status == 401 and self._is_own(response.url):
                challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
                response.close()
                await self._authentication.answer(challenges, self.safe)
                response = await self._send(method, url, headers, data)
            try:
                if response.status == 401 and not self._is_own(response.url):
                    raise bad_answer("it leads to another host that wants a login", str(response.url.origin()))
                if response.status == 401:
                    raise self._authentication.refused("it asks again and again")
                yield response
            finally:
                response.close() if not response.content.at_eof() else response.release()

    def safe(self, text: str, base: URL | None = None) -> URL:
        """An address that the registry gave, if it may be used.

        Raises:
            RegistryError: `registry-bad-answer`, `registry-insecure`.
        """
        try:
            url = URL(text, encoded=True)
            url = base.join(url) if base is not None else url
            host, user = url.host, url.user
        except ValueError:
            raise bad_answer("it gives an address that is none", self.reference.host) from None
        if not text or not host or user is not None or url.scheme not in ("http", "https"):
            raise bad_answer("it gives an address that is none", self.reference.host)
        if url.scheme == "http" and not (self._access.plain_http or (self._plain and is_loopback(host))):
            raise insecure(str(url.with_query(None)))
        return url

    def _is_own(self, url: URL) -> bool:
        return url.origin() == self._base.origin()

    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str], data: bytes | memoryview | None
    ) -> aiohttp.ClientResponse:
        for _ in range(self.limits.redirects + 1):
            header = self._authentication.header if self._is_own(url) else None
            authorization = {} if header is None else {"Authorization": header}
            response = await self._request(method, url, {**headers, **authorization}, data)
            if response.status not in (301, 302, 303, 307, 308):
                return response
            location = response.headers.get("Location", "")
            response.close()
            if method not in ("GET", "HEAD"):
                raise bad_answer(f"it redirects a {method}", str(url.with_query(None)))
            url = self.safe(location, url)
        raise bad_answer("it redirects without end", str(self._base))

    async def _request(
        self, method: str, url: URL, headers: Mapping[str, str], data: bytes | memoryview | Mapping[str, str] | None
    ) -> aiohttp.ClientResponse:
        assert self._session is not None
        if url.scheme == "https" and self._tls is None:
            self._tls = await asyncio.to_thread(_trusting, self._access.authority)
        return await self._session.request(
            method,
            url,
            headers=headers,
            data=data,
            allow_redirects=False,
            proxy=_proxy_of(url),
            ssl=self._tls or True,
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=self.limits.connect_seconds,
                sock_connect=self.limits.connect_seconds,
                # The system takes megabytes to be sent long before they are.
                sock_read=self.limits.stall_seconds + self._sending_seconds(data),
            ),
        )

    def _sending_seconds(self, data: Sized | None) -> float:
        return len(data or b"") / self.limits.slowest_bytes_per_second

    async def _ask(
        self, method: str, url: URL, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> TokenAnswer:
        with self._understood(url):
            async with await self._request(method, url, headers, form) as response:
                body = await self.body(response)
        answers.check_passing(response.status, response.headers, str(url.with_query(None)))
        return TokenAnswer(response.status, body)

    async def _read(
        self, response: aiohttp.ClientResponse, method: str, most: int | None, expect: tuple[int, ...]
    ) -> Answer:
        body = b"" if method == "HEAD" else await self.body(response, most)
        if response.status not in expect:
            raise answers.unexpected(response.status, response.headers, body, self.reference)
        return Answer(response.status, response.headers, body)

    async def body(self, response: aiohttp.ClientResponse, most: int | None = None) -> bytes:
        """The rest of a small answer. Raises RegistryError `registry-bad-answer` when it has more than `most` bytes."""
        most = self.limits.answer_bytes if most is None else most
        body = bytearray()
        async for chunk in response.content.iter_chunked(64 << 10):
            body += chunk
            if len(body) > most:
                raise bad_answer(f"its answer is over {most} bytes", str(response.url.with_query(None)))
        return bytes(body)

    async def _in_time(self, attempt: Callable[[], Awaitable[T]]) -> T:
        try:
            return await attempt()
        except TimeoutError as error:
            raise answers.too_slow(self.reference.host) from error

    @contextlib.contextmanager
    def _understood(self, url: URL) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientError, ConnectionError) as error:
            understood = answers.unreachable(error, str(url.origin()))
            if self._plain and understood.code == "registry-bad-answer":
                understood.advice = "it was spoken to without TLS: if it has TLS, name its authority with --ca"
            raise understood from error


def _trusting(authority: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if authority is not None:
        try:
            context.load_verify_locations(cafile=authority)
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(
                "bad-authority-file",
                f"the authority of the registry cannot be read: {error.strerror or error}",
                where=str(authority),
                advice="give a file of PEM certificates",
            ) from error
    return context


def _proxy_of(url: URL) -> URL | None:
    """The proxy of the environment. Not aiohttp's `trust_env`, which would also send what is in ~/.netrc."""
    host = url.host or ""
    proxy = urllib.request.getproxies().get(url.scheme)
    if proxy is None or is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return URL(proxy if "://" in proxy else f"http://{proxy}")
