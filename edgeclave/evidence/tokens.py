"""Attestation results as JWT (RFC 7519): signed with RS256 by a verifier, and read with keys that were pinned.

Rules for reading, all of them always:

1. the key is one of the pinned set (JWKS), found by `kid`; nothing is fetched, and no key comes from the token: `jwk`,
   `x5c` and `x5u` in the header are refused, and `jku` is accepted only where it names the issuer's own set;
2. the algorithm is RS256, whatever the header says: neither `none`, nor HMAC with the public key as its secret;
3. `typ` and `iss` are exactly those expected;
4. `nbf`, `iat` and `exp` are there, and cover the time of verification, in both directions.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edgeclave import cose
from edgeclave.errors import ConfigurationError, EvidenceError
from edgeclave.evidence.x509_errors import UNREADABLE

RS256 = "RS256"
MIN_RSA_BITS = 2048
MAX_TOKEN_BYTES = 64 << 10
MAX_JWKS_BYTES = 256 << 10  # the shared set of a region of Microsoft Azure Attestation has about 40 KiB
MAX_KEYS = 64
_HEADER_NAMES = {"alg", "kid", "typ", "jku"}
_TIMES = ("iat", "nbf", "exp")


@dataclass(frozen=True)
class TokenSigner:
    """A verifier's signing key and its self-signed certificate, which clients of Microsoft's SDK look for."""

    issuer: str
    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @cached_property
    def key_id(self) -> str:
        """base64url of the SHA-256 of the certificate."""
        return _base64url(cose.sha256(self._der))

    @property
    def jwks_uri(self) -> str:
        return f"{self.issuer}/certs"

    def jwks(self) -> dict[str, Any]:
        """The set that readers pin (RFC 7517), with key and certificate."""
        numbers = self.key.public_key().public_numbers()
        size = (self.key.key_size + 7) // 8
        key = {"kty": "RSA", "use": "sig", "alg": RS256, "kid": self.key_id}
        n, e = _base64url(numbers.n.to_bytes(size, "big")), _base64url(numbers.e.to_bytes(3, "big"))
        return {"keys": [{**key, "n": n, "e": e, "x5c": [base64.b64encode(self._der).decode()]}]}

    def sign(self, claims: Mapping[str, Any], *, typ: str) -> str:
        """Returns the token; `iss` is added."""
        headers = {"kid": self.key_id, "typ": typ, "jku": self.jwks_uri}
        return jwt.encode({"iss": self.issuer, **claims}, self.key, RS256, headers=headers)

    @cached_property
    def _der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True)
class PinnedIssuer:
    """Whose tokens are believed: the issuer and its keys by `kid`."""

    issuer: str
    keys: Mapping[str, rsa.RSAPublicKey]

    @classmethod
    def from_jwks(cls, issuer: str, jwks: bytes) -> PinnedIssuer:
        """Reads a set that was fetched earlier over a channel that the reader trusts. Other keys than RSA are left out.

        Raises:
            ConfigurationError: `bad-jwks`.
        """
        if len(jwks) > MAX_JWKS_BYTES:
            raise _bad_jwks(f"{len(jwks)} bytes is over the limit of {MAX_JWKS_BYTES}")
        try:
            entries = json.loads(jwks)["keys"]
            rsa_entries = [entry for entry in entries if entry["kty"] == "RSA"]
            keys = [(entry["kid"], _key(entry)) for entry in rsa_entries]
        except (KeyError, RecursionError, jwt.PyJWTError, *UNREADABLE) as error:
            raise _bad_jwks(f"not a set of keys: {error!r}") from error
        if not keys or len(keys) > MAX_KEYS or len(dict(keys)) != len(keys):
            raise _bad_jwks(f"it must hold 1 to {MAX_KEYS} RSA keys, each with a `kid` of its own")
        if any(not isinstance(name, str) or key.key_size < MIN_RSA_BITS for name, key in keys):
            raise _bad_jwks(f"each key must have {MIN_RSA_BITS} bits or more, and a text as `kid`")
        return cls(issuer, dict(keys))

    def read(self, token: str, *, typ: str, now: int) -> dict[str, Any]:
        """The claims of a token, at a time in s since 1970.

        Raises:
            EvidenceError: `malformed-token`, `wrong-token-algorithm`, `embedded-key`, `unknown-token-key`,
                `bad-token-signature`, `wrong-token-kind`, `wrong-issuer`, `token-expired`, `token-not-yet-valid`.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise _refused("malformed-token", f"a token of {len(token)} characters is over the limit")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise _refused("malformed-token", f"not a token: {error}") from error
        key = self._key_for(header)
        try:
            # Times are checked below, at the time of verification rather than of this machine.
            options = {"require": list(_TIMES), "verify_aud": False, **dict.fromkeys(_NO_CLOCK, False)}
            claims = jwt.decode(token, key, algorithms=[RS256], options=options)  # type: ignore[arg-type]
        except jwt.InvalidSignatureError as error:
            raise _refused("bad-token-signature", f"not signed by the key {header['kid']}") from error
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise _refused("malformed-token", f"not a token of this release: {error}") from error
        if header.get("typ") != typ:
            raise _refused("wrong-token-kind", f"expected {typ}, got {str(header.get('typ'))[:80]}")
        if claims.get("iss") != self.issuer:
            raise _refused("wrong-issuer", f"issued by {str(claims.get('iss'))[:200]}, not by {self.issuer}")
        _check_times(claims, now)
        return claims

    def _key_for(self, header: Mapping[str, Any]) -> rsa.RSAPublicKey:
        if header.get("alg") != RS256:
            raise _refused("wrong-token-algorithm", f"the algorithm is {str(header.get('alg'))[:20]}, not {RS256}")
        if not header.keys() <= _HEADER_NAMES or header.get("jku", f"{self.issuer}/certs") != f"{self.issuer}/certs":
            raise _refused("embedded-key", "the token names keys of its own, or asks for an extension")
        key = self.keys.get(str(header.get("kid")))
        if key is None:
            raise _refused("unknown-token-key", f"no pinned key is called {str(header.get('kid'))[:80]}")
        return key


_NO_CLOCK = ("verify_exp", "verify_nbf", "verify_iat")


def _check_times(claims: Mapping[str, Any], now: int) -> None:
    if any(type(claims[name]) is not int for name in _TIMES):
        raise _refused("malformed-token", "a time is not a whole number of seconds")
    if now < max(claims["iat"], claims["nbf"]):
        raise EvidenceError("token-not-yet-valid", "the token is of the future", advice="check the clock")
    if now >= claims["exp"]:
        raise EvidenceError(
            "token-expired",
            "the token is no longer valid",
            advice="ask for a new one, or verify at the time of receipt",
        )


def _key(entry: Mapping[str, Any]) -> rsa.RSAPublicKey:
    """From the numbers, or from the first certificate where there are none, as in Microsoft's sets."""
    if "n" in entry:
        key = jwt.PyJWK(dict(entry), RS256).key
    else:
        key = x509.load_der_x509_certificate(base64.b64decode(entry["x5c"][0], validate=True)).public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("not a public RSA key")
    return key


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bad_jwks(what: str) -> ConfigurationError:
    return ConfigurationError("bad-jwks", what, advice="fetch the issuer's set again over HTTPS, and pin that file")


def _refused(code: str, what: str) -> EvidenceError:
    return EvidenceError(code, what, advice="do not use it; ask the attestation service for a new token")
