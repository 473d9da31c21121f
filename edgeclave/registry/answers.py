"""What an answer that is not the wished one means: one error each, with what to do."""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import Mapping

import aiohttp
import msgspec

from edgeclave.registry.errors import RegistryError, bad_answer
from edgeclave.registry.reference import Reference

MAX_MESSAGE_CHARACTERS = 200
LONGEST_RETRY_AFTER_SECONDS = 3600.0
"""No registry may silence us for longer."""
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class _Fault(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Faults(msgspec.Struct):
    errors: list[_Fault] = []


def unexpected(status: int, headers: Mapping[str, str], body: bytes, reference: Reference) -> RegistryError:
    """The error for a status that was not hoped for."""
    said, where = _said(body), str(reference)
    try:
        check_passing(status, headers, where, said)
    except RegistryError as error:
        return error
    match status:
        case 403:
            return RegistryError(
                "registry-denied",
                f"the registry does not allow this{said}",
                where=where,
                advice="give this user the right to pull, or to push, this repository (AcrPull, AcrPush)",
            )
        case 404:
            return RegistryError(
                "registry-not-found",
                f"the registry does not have this{said}",
                where=where,
                advice="check repository, tag and digest; push it with `edgeclave ta push`; some registries answer so "
                "where a login is missing",
            )
    if is_page(headers):
        return bad_answer(f"it answers {status} with a web page", where)
    return bad_answer(f"it answers {status}{said}", where)


def check_passing(status: int, headers: Mapping[str, str], where: str, said: str = "") -> None:
    """Raises RegistryError `registry-busy`, `registry-failed` for what may pass."""
    if status not in _PASSING:
        return
    retry_after = _retry_after(headers.get("Retry-After", ""))
    if status == 429:
        raise RegistryError(
            "registry-busy",
            f"the registry has had too many requests{said}",
            where=where,
            advice="try again later; log in, where it allows more to those who do",
            again=True,
            retry_after=retry_after,
        )
    raise RegistryError(
        "registry-failed",
        f"the registry fails: it answers {status}{said}",
        where=where,
        advice="try again later; look at the registry's own state",
        again=True,
        retry_after=retry_after,
    )


def unreachable(error: Exception, where: str) -> RegistryError:
    """A connection that does not come about, or breaks."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return RegistryError(
            "registry-untrusted",
            f"the registry's certificate is not trusted: {_cut(str(error.certificate_error))}",
            where=where,
            advice="name the authority that issued it: --ca FILE, or ca.pem in the registry folder of a device",
        )
    if isinstance(error, (aiohttp.ClientConnectorSSLError, ssl.SSLError)):
        return RegistryError(
            "registry-untrusted",
            f"no TLS with the registry: {_cut(str(error))}",
            where=where,
            advice="check host and port; for a registry without TLS in a network of your own there is --plain-http",
        )
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ClientProxyConnectionError)):
        return RegistryError(
            "registry-unreachable",
            f"nobody answers: {_cut(error.strerror or str(error))}",
            where=where,
            advice="check the host's name and port (in a container, localhost is the container), the network, and "
            "https_proxy and no_proxy",
        )
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return RegistryError(
            "registry-unreachable",
            f"the proxy does not lead there: it answers {error.status}",
            where=where,
            advice="check https_proxy and no_proxy",
        )
    if isinstance(error, aiohttp.ServerTimeoutError):
        return too_slow(where)
    if isinstance(error, aiohttp.ClientResponseError) and error.status != 0:
        return bad_answer(f"it sends what is no HTTP: {_cut(error.message)}", where)
    return RegistryError(
        "registry-unreachable",
        f"the connection broke: {_cut(str(error)) or type(error).__name__}",
        where=where,
        advice="try again: what has arrived is kept",
        again=True,
    )


def too_slow(where: str) -> RegistryError:
    """It takes longer than its limit."""
    return RegistryError(
        "registry-too-slow",
        "the registry is silent, or sends too slowly",
        where=where,
        advice="try again: what has arrived is kept; check the network and the registry's load",
        again=True,
    )


def _said(body: bytes) -> str:
    """The registry's own words, where they are in the specification's form."""
    try:
        faults = msgspec.json.decode(body, type=_Faults).errors
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    words = _cut(" ".join(filter(None, (faults[0].code, faults[0].message)))) if faults else ""
    return f": {words}" if words else ""


def _cut(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable[:MAX_MESSAGE_CHARACTERS].strip()


def is_page(headers: Mapping[str, str]) -> bool:
    """Whether the answer is a web page, as of a log-in or a firewall."""
    return headers.get("Content-Type", "").lower().startswith("text/html")


def _retry_after(text: str) -> float | None:
    """Seconds; the header has them, or a date (RFC 9110 section 10.2.3)."""
    if text.isascii() and text.isdecimal() and len(text) < 10:
        seconds = float(text)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)
