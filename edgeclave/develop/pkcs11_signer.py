"""Signing with a key in a PKCS#11 token: the key never leaves it.

The library is named by `module-path` in the URI or the variable EDGECLAVE_PKCS11_MODULE; the PIN comes from the file
that `pin-source` names, the variable EDGECLAVE_PKCS11_PIN, or is asked for on the terminal.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pkcs11
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from edgeclave.develop.pkcs11_uri import KeyUri
from edgeclave.errors import ConfigurationError
from edgeclave.ta.signature import MAX_CHAIN

MODULE_VARIABLE = "EDGECLAVE_PKCS11_MODULE"
PIN_VARIABLE = "EDGECLAVE_PKCS11_PIN"
MAX_PIN_BYTES = 256
MAX_TOKEN_CERTIFICATES = 256


class TokenKey:
    """A private key in an open session. Made by `open_key`."""

    def __init__(self, session: Any, key: Any, uri: KeyUri) -> None:
        self._session = session
        self._key = key
        self._uri = uri

    def sign(self, digest: bytes) -> bytes:
        """ECDSA over a digest of 32 bytes; returns r | s. Raises ConfigurationError `token-refused`."""
        with _explained(self._uri):
            return bytes(self._key.sign(digest, mechanism=Mechanism.ECDSA))

    def chain(self) -> list[x509.Certificate]:
        """The certificates on the token from the one with this key's id up to its root, as far as they are there.

        Raises:
            ConfigurationError: `no-certificate`, `token-refused`.
        """
        with _explained(self._uri):
            wanted = self._key[Attribute.ID]
            leaf, pool = None, []
            for number, found in enumerate(self._session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE})):
                if number == MAX_TOKEN_CERTIFICATES:
                    break
                with contextlib.suppress(ValueError):
                    certificate = x509.load_der_x509_certificate(bytes(found[Attribute.VALUE]))
                    pool.append(certificate)
                    leaf = certificate if found[Attribute.ID] == wanted else leaf
        if leaf is None:
            raise ConfigurationError(
                "no-certificate",
                "the token has no certificate with the id of this key",
                where=_where(self._uri),
                advice="name the key's certificates, leaf first, with --chain FILE.pem",
            )
        chain = [leaf]
        while len(chain) < MAX_CHAIN and (issuer := _issuer(chain[-1], pool)) is not None:
            chain.append(issuer)
        return chain


@contextlib.contextmanager
def open_key(uri: KeyUri) -> Iterator[TokenKey]:
    """Opens the token and finds the key; logs out in the end.

    Raises:
        ConfigurationError: `no-pkcs11-module`, `no-token`, `no-token-key`, `bad-pin`, `token-refused`, `no-pin`.
    """
    module = uri.module or Path(os.environ.get(MODULE_VARIABLE, ""))
    if not module.is_file():
        raise ConfigurationError(
            "no-pkcs11-module",
            "the PKCS#11 library cannot be found",
            where=str(module) if module.name else _where(uri),
            advice=f"name it with module-path in the URI or the variable {MODULE_VARIABLE}",
        )
    with _explained(uri):
        token = pkcs11.lib(str(module)).get_token(
            token_label=uri.token, token_serial=None if uri.serial is None else uri.serial.encode()
        )
    pin = _pin(uri)
    with contextlib.ExitStack() as stack:
        with _explained(uri):
            session = stack.enter_context(token.open(user_pin=pin))
            key = session.get_key(
                object_class=ObjectClass.PRIVATE_KEY, key_type=KeyType.EC, label=uri.object, id=uri.id
            )
        yield TokenKey(session, key, uri)


def _pin(uri: KeyUri) -> str:
    if uri.pin_file is not None:
        try:
            status = uri.pin_file.stat()
            text = uri.pin_file.read_bytes()[:MAX_PIN_BYTES].decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise _no_pin(f"the PIN cannot be read: {error}", str(uri.pin_file)) from error
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise _no_pin("others can read the file with the PIN", str(uri.pin_file), f"run `chmod 600 {uri.pin_file}`")
        return text
    if PIN_VARIABLE in os.environ:
        return os.environ[PIN_VARIABLE]
    if not sys.stdin.isatty():
        raise _no_pin("the token wants a PIN, and there is no terminal to ask for it", _where(uri))
    return getpass.getpass(f"PIN of token {uri.token or uri.serial}: ")


def _issuer(certificate: x509.Certificate, pool: list[x509.Certificate]) -> x509.Certificate | None:
    if certificate.subject == certificate.issuer:
        return None
    for candidate in pool:
        if candidate.subject == certificate.issuer:
            with contextlib.suppress(ValueError, TypeError, InvalidSignature):
                certificate.verify_directly_issued_by(candidate)
                return candidate
    return None


@contextlib.contextmanager
def _explained(uri: KeyUri) -> Iterator[None]:
    """Turns what the token's library says into an error that a person can act on."""
    try:
        yield
    except (pkcs11.NoSuchToken, pkcs11.MultipleTokensReturned) as error:
        raise _error(uri, "no-token", "there is no token of this name, or more than one") from error
    except (pkcs11.NoSuchKey, pkcs11.MultipleObjectsReturned) as error:
        raise _error(uri, "no-token-key", "the token has no EC private key of this name, or more than one") from error
    except (pkcs11.PinIncorrect, pkcs11.PinLenRange, pkcs11.PinInvalid) as error:
        raise _error(uri, "bad-pin", "the token refuses this PIN") from error
    except pkcs11.PinLocked as error:
        raise _error(uri, "bad-pin", "the token is locked after too many wrong PINs") from error
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        what = f"the token or its library failed: {type(error).__name__} {error}".rstrip()
        raise _error(uri, "token-refused", what) from error


def _error(uri: KeyUri, code: str, what: str) -> ConfigurationError:
    advice = "compare with what `pkcs11-tool --list-objects --login` or the tool of your token shows"
    return ConfigurationError(code, what, where=_where(uri), advice=advice)


def _where(uri: KeyUri) -> str:
    return f"token {uri.token or uri.serial}"


def _no_pin(what: str, where: str, advice: str | None = None) -> ConfigurationError:
    usual = f"name a file with pin-source=file:/path in the URI, or set {PIN_VARIABLE}"
    return ConfigurationError("no-pin", what, where=where, advice=advice or usual)
