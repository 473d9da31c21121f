"""Enrolments on disk: individual ones by registration id, groups by their id (DPS service API 2021-10-01, the members
that the simulator acts on; others are kept and given back).
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from edgeclave.deployment.twin_limits import MAX_PROPERTIES_BYTES, MAX_TAGS_BYTES
from edgeclave.simulator.hub_errors import HubError, bad_request
from edgeclave.simulator.store import Store
from edgeclave.simulator.twin_document import check, check_size, dump

MAX_ENROLMENTS = 1000  # individual and groups together; Azure's is higher, a test's is not
MAX_CERTIFICATE_CHARACTERS = 64 * 1024
SYMMETRIC_KEY, X509 = "symmetricKey", "x509"
_PEM = "-----BEGIN"
_ID = re.compile(r"[A-Za-z0-9\-._:]{1,128}")


@dataclass(frozen=True)
class Enrolment:
    """One enrolment. `document` is what the client gave, with keys made where it gave none."""

    id: str
    is_group: bool
    document: Mapping[str, Any]
    etag: str
    created: str
    updated: str

    @property
    def enabled(self) -> bool:
        return bool(self.document.get("provisioningStatus", "enabled") == "enabled")

    @property
    def kind(self) -> str:
        return str(self.document["attestation"]["type"])

    @property
    def keys(self) -> tuple[str, str]:
        """Base64, of the enrolment itself; a group's are only to derive from."""
        held = self.document["attestation"]["symmetricKey"]
        return held["primaryKey"], held["secondaryKey"]

    @property
    def certificates(self) -> list[x509.Certificate]:
        """Of the device itself (individual) or of the authority that signed it (group)."""
        if self.kind != X509:
            return []
        return [_certificate(text) for text in _given(self.document["attestation"]["x509"])]

    def shown(self) -> dict[str, Any]:
        """The REST document."""
        key = "enrollmentGroupId" if self.is_group else "registrationId"
        times = {"createdDateTimeUtc": self.created, "lastUpdatedDateTimeUtc": self.updated}
        return {**self.document, key: self.id, "etag": self.etag, **times}


class Enrolments:
    """All enrolments. `on_certificate` hears of each certificate that a device may show from then on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.on_certificate: list[Callable[[x509.Certificate], None]] = []

    def all(self, *, is_group: bool) -> list[Enrolment]:
        rows = self._store.connection.execute("SELECT * FROM enrolments WHERE is_group = ? ORDER BY id", (is_group,))
        return [_enrolment(row) for row in rows]

    def find(self, enrolment_id: str, *, is_group: bool) -> Enrolment | None:
        row = self._store.connection.execute(
            "SELECT * FROM enrolments WHERE id = ? AND is_group = ?", (enrolment_id, is_group)
        ).fetchone()
        return _enrolment(row) if row else None

    def get(self, enrolment_id: str, *, is_group: bool) -> Enrolment:
        """Raises HubError 404."""
        found = self.find(enrolment_id, is_group=is_group)
        if found is None:
            raise HubError(404, "EnrollmentNotFound", f"there is no enrolment {enrolment_id[:128]!r}")
        return found

    def put(self, enrolment_id: str, document: Mapping[str, Any], *, is_group: bool, if_match: str = "") -> Enrolment:
        """Creates, or replaces when an etag is given.

        Raises:
            HubError: 400, 403 too many, 404, 409 exists already, 412 stale etag.
        """
        if not _ID.fullmatch(enrolment_id):
            raise bad_request(f"{enrolment_id[:128]!r} is not an id of an enrolment")
        complete = _complete(document, is_group=is_group)
        old = self.find(enrolment_id, is_group=is_group)
        if if_match:
            self._check_etag(enrolment_id, is_group, if_match)
        elif old is not None:
            raise HubError(409, "EnrollmentConflict", f"there is an enrolment {enrolment_id!r} already")
        count = self._store.connection.execute("SELECT count(*) FROM enrolments").fetchone()[0]
        if old is None and count >= MAX_ENROLMENTS:
            raise HubError(403, "QuotaExceeded", f"the simulator keeps at most {MAX_ENROLMENTS} enrolments")
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        row = (enrolment_id, is_group, dump(complete), _version(old) + 1, old.created if old else now, now)
        with self._store.write() as connection:
            connection.execute("INSERT OR REPLACE INTO enrolments VALUES (?, ?, ?, ?, ?, ?)", row)
        made = self.get(enrolment_id, is_group=is_group)
        for certificate in made.certificates:
            for listener in self.on_certificate:
                listener(certificate)
        return made

    def delete(self, enrolment_id: str, *, is_group: bool, if_match: str) -> None:
        """Raises HubError 404, 412. Devices that were registered stay, as in Azure."""
        self._check_etag(enrolment_id, is_group, if_match)
        with self._store.write() as connection:
            connection.execute("DELETE FROM enrolments WHERE id = ? AND is_group = ?", (enrolment_id, is_group))

    def _check_etag(self, enrolment_id: str, is_group: bool, if_match: str) -> None:
        if if_match not in ("*", self.get(enrolment_id, is_group=is_group).etag):
            raise HubError(412, "PreconditionFailed", f"the etag of {enrolment_id!r} is not the one given")


def _complete(document: Mapping[str, Any], *, is_group: bool) -> dict[str, Any]:
    """The document with its keys; raises HubError 400 for what it cannot be."""
    attestation = _object(document, "attestation")
    kind = attestation.get("type")
    if kind == SYMMETRIC_KEY:
        given = _object(attestation, "symmetricKey") if attestation.get("symmetricKey") else {}
        keys = {name: _key(given.get(name), name) for name in ("primaryKey", "secondaryKey")}
        attestation = {"type": kind, "symmetricKey": keys}
    elif kind == X509:
        texts = _given(_object(attestation, "x509"))
        if not texts:
            place = "signingCertificates" if is_group else "clientCertificates"
            raise bad_request(f"needs {place}.primary.certificate", where="attestation.x509")
        for text in texts:
            _certificate(text)
    else:
        raise bad_request(
            "is symmetricKey or x509; the simulator has no TPM",
            where="attestation.type",
        )
    if document.get("provisioningStatus", "enabled") not in ("enabled", "disabled"):
        raise bad_request("is enabled or disabled", where="provisioningStatus")
    _check_twin(document.get("initialTwin") or {})
    return {**document, "attestation": attestation}


def _check_twin(twin: object) -> None:
    if not isinstance(twin, dict):
        raise bad_request("must be an object", where="initialTwin")
    properties = twin.get("properties") or {}
    desired = properties.get("desired") if isinstance(properties, dict) else 0
    for section, limit, where in (
        (twin.get("tags"), MAX_TAGS_BYTES, "initialTwin.tags"),
        (desired, MAX_PROPERTIES_BYTES, "initialTwin.properties.desired"),
    ):
        if section is None:
            continue
        if not isinstance(section, dict):
            raise bad_request("must be an object", where=where)
        plain = {name: value for name, value in section.items() if not name.startswith("$")}
        check(plain, where)
        check_size(plain, limit, where)


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    if not isinstance(value, dict):
        raise bad_request("must be an object", where=name)
    return value


def _key(given: object, name: str) -> str:
    if not given:
        return base64.b64encode(secrets.token_bytes(64)).decode()
    try:
        decoded = base64.b64decode(str(given), validate=True)
    except ValueError:
        decoded = b""
    if not 16 <= len(decoded) <= 64:
        raise bad_request("must be base64 of 16 to 64 bytes", where=f"attestation.symmetricKey.{name}")
    return str(given)


def _given(attestation: Mapping[str, Any]) -> list[str]:
    """The certificates as they were given: PEM, or base64 of PEM or DER."""
    found = []
    for holder in ("clientCertificates", "signingCertificates"):
        for which in ("primary", "secondary"):
            entry = (attestation.get(holder) or {}).get(which) if isinstance(attestation.get(holder), dict) else None
            text = entry.get("certificate") if isinstance(entry, dict) else None
            if isinstance(text, str) and text:
                found.append(text)
    return found


def _certificate(text: str) -> x509.Certificate:
    if len(text) > MAX_CERTIFICATE_CHARACTERS:
        raise bad_request(f"has over {MAX_CERTIFICATE_CHARACTERS} characters", where="attestation.x509")
    try:
        raw = text.encode() if text.lstrip().startswith(_PEM) else base64.b64decode(text)
        if raw.lstrip().startswith(_PEM.encode()):
            return x509.load_pem_x509_certificate(raw)
        return x509.load_der_x509_certificate(raw)
    except ValueError as error:
        what = "is not a certificate in PEM, nor base64 of one in PEM or DER"
        raise bad_request(what, where="attestation.x509") from error


def _enrolment(row: sqlite3.Row) -> Enrolment:
    etag = base64.b64encode(str(row["version"]).encode()).decode()
    document = json.loads(row["document"])
    return Enrolment(row["id"], bool(row["is_group"]), document, etag, row["created"], row["updated"])


def _version(enrolment: Enrolment | None) -> int:
    return int(base64.b64decode(enrolment.etag)) if enrolment else 0
