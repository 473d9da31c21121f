"""One tree of errors. Each says what was wrong, where, and what to do next; callers branch on `code`.

>>> error = EdgeclaveError("no-such-key", "there is no key `reader`", where="keys/", advice="run `edgeclave keys new`")
>>> print(error)
there is no key `reader` (keys/) [no-such-key]; run `edgeclave keys new`
"""

from __future__ import annotations


class EdgeclaveError(Exception):
    """Base of all errors that reach a user.

    Args:
        code: kebab-case, stable, the thing scripts and tests compare.
        what: one sentence, no secrets, no trailing period.
        where: file, field path, module or stream it is about.
        advice: what a person should do next.
    """

    def __init__(self, code: str, what: str, *, where: str = "", advice: str = "") -> None:
        super().__init__(code, what, where, advice)
        self.code = code
        self.what = what
        self.where = where
        self.advice = advice

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.what}{place} [{self.code}]{advice}"


class ConfigurationError(EdgeclaveError):
    """A template, twin, policy, connection string or command line that cannot be used as it is."""


class PackageError(EdgeclaveError):
    """A trusted application package, manifest or signature that is refused."""


class EnclaveError(EdgeclaveError):
    """The enclave refused, failed or ended; nothing of the call was committed."""


class EvidenceError(EdgeclaveError):
    """Evidence that does not pass the verifier."""


class ResultError(EdgeclaveError):
    """A sealed result, open or close record, or recipient set that is refused."""
