"""The one family of errors of registries."""

from __future__ import annotations

from edgeclave.errors import EdgeclaveError


class RegistryError(EdgeclaveError):
    """A registry, its answers, or what is known of how to reach it.

    Args:
        again: whether the same request may succeed within seconds.
        retry_after: seconds that the registry asks to wait, if it said so.
    """

    def __init__(
        self,
        code: str,
        what: str,
        *,
        where: str = "",
        advice: str = "",
        again: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, what, where=where, advice=advice)
        self.again = again
        self.retry_after = retry_after


def bad_answer(what: str, where: str) -> RegistryError:
    """An answer that the distribution specification does not know."""
    return RegistryError(
        "registry-bad-answer",
        what,
        where=where,
        advice="check that the host is a registry, and that no log-in page, proxy or firewall answers in its place",
    )


def insecure(where: str) -> RegistryError:
    """A way that leads over plain HTTP."""
    return RegistryError(
        "registry-insecure",
        "it leads to an address that is not https",
        where=where,
        advice="correct the registry; for one without TLS in a network of your own there is --plain-http",
    )
