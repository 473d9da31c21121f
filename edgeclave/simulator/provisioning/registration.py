"""Registering a device: its proof against its enrolment, then its identity and initial twin in the hub.

A registration id with an individual enrolment uses that one only. Otherwise any enabled group will do whose derived key
signed the token (HMAC-SHA256 of the registration id under the group's key), or whose authority signed the certificate.
"""

from __future__ import annotations

import base64
import ssl
import time
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from edgeclave.simulator.credentials import SAS, SELF_SIGNED, Credentials
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.provisioning.enrolments import SYMMETRIC_KEY, X509, Enrolment, Enrolments
from edgeclave.simulator.sas import SharedAccessSignature, sign


@dataclass(frozen=True)
class Admission:
    """A client that has proven its registration id."""

    registration_id: str
    enrolment: Enrolment
    credentials: Credentials


class Registrations:
    """Admits and registers. Writes join the store's current group."""

    def __init__(self, hub: EdgeHub, enrolments: Enrolments, *, hub_host: str, id_scope: str) -> None:
        self._hub = hub
        self._enrolments = enrolments
        self._hub_host = hub_host
        self._id_scope = id_scope

    def admit(self, scope: str, registration_id: str, token: str, certificates: list[x509.Certificate]) -> Admission:
        """Checks a client's proof.

        Args:
            certificates: what it showed in its TLS handshake, which has checked the chain; its own first.

        Raises:
            HubError: 401 with no more detail than the client may know.
        """
        if scope != self._id_scope:
            raise _refused(f"there is no id scope {scope[:40]!r}")
        for enrolment in self._candidates(registration_id):
            if enrolment.kind == SYMMETRIC_KEY and token:
                credentials = self._by_key(enrolment, registration_id, token)
            elif enrolment.kind == X509 and certificates:
                credentials = _by_certificate(enrolment, registration_id, certificates)
            else:
                credentials = None
            if credentials is not None:
                return Admission(registration_id, enrolment, credentials)
        raise _refused(f"no enrolment admits {registration_id[:128]!r} with this proof")

    def register(self, admission: Admission) -> dict[str, Any]:
        """The registration state as the device gets it; identity and twin are made at the first time.

        A device that is registered already keeps its twin; its keys become those of the enrolment.

        Raises:
            HubError: what its enrolment cannot be made into.
        """
        enrolment, now = admission.enrolment, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        device_id = str((not enrolment.is_group and enrolment.document.get("deviceId")) or admission.registration_id)
        name = IdentityName(device_id)
        old = self._row(admission.registration_id)
        created, version = (old["created"], old["version"] + 1) if old else (now, 1)
        with self._hub.store.write() as connection:
            if (present := self._hub.identities.find(name)) is None:
                self._make(name, admission)
            else:  # whether it is enabled is the hub's to say
                self._hub.identities.update(
                    name, admission.credentials, enabled=present.enabled, status_reason=present.status_reason
                )
            connection.execute(
                "INSERT OR REPLACE INTO registrations VALUES (?, ?, ?, ?, ?, ?, ?)",
                (admission.registration_id, enrolment.id, enrolment.is_group, device_id, created, now, version),
            )
        return self.state(admission.registration_id)

    def state(self, registration_id: str) -> dict[str, Any]:
        """Raises HubError 404 for what was never registered."""
        row = self._row(registration_id)
        if row is None:
            raise HubError(404, "DeviceRegistrationNotFound", f"{registration_id[:128]!r} is not registered")
        return {
            "registrationId": row["registration_id"],
            "createdDateTimeUtc": row["created"],
            "lastUpdatedDateTimeUtc": row["updated"],
            "assignedHub": self._hub_host,
            "deviceId": row["device_id"],
            "status": "assigned",
            "substatus": "initialAssignment",
            "etag": base64.b64encode(str(row["version"]).encode()).decode(),
        }

    def of_group(self, group_id: str) -> list[dict[str, Any]]:
        """The states of what a group admitted."""
        rows = self._hub.store.connection.execute(
            "SELECT registration_id FROM registrations WHERE enrolment_id = ? AND is_group = 1 ORDER BY 1", (group_id,)
        )
        return [self.state(row["registration_id"]) for row in rows.fetchall()]

    def forget(self, registration_id: str) -> None:
        """Drops the registration, not the device. Raises HubError 404."""
        self.state(registration_id)
        with self._hub.store.write() as connection:
            connection.execute("DELETE FROM registrations WHERE registration_id = ?", (registration_id,))

    def _candidates(self, registration_id: str) -> list[Enrolment]:
        individual = self._enrolments.find(registration_id, is_group=False)
        found = [individual] if individual else self._enrolments.all(is_group=True)
        return [enrolment for enrolment in found if enrolment.enabled]

    def _by_key(self, enrolment: Enrolment, registration_id: str, token: str) -> Credentials | None:
        keys = enrolment.keys
        if enrolment.is_group:
            keys = (derived_key(keys[0], registration_id), derived_key(keys[1], registration_id))
        try:
            signature = SharedAccessSignature.parse(token)
            signature.check(keys, hosts=(self._id_scope.lower(),), path=f"/registrations/{registration_id}")
        except HubError:
            return None
        return Credentials(SAS, *keys)

    def _make(self, name: IdentityName, admission: Admission) -> None:
        document = admission.enrolment.document
        capabilities = document.get("capabilities") or {}
        self._hub.identities.create(name, admission.credentials, iot_edge=capabilities.get("iotEdge") is True)
        twin = document.get("initialTwin") or {}
        desired = (twin.get("properties") or {}).get("desired")
        if twin.get("tags") or desired:
            self._hub.twins.update(name, tags=_plain(twin.get("tags")), desired=_plain(desired))

    def _row(self, registration_id: str) -> Any:
        return self._hub.store.connection.execute(
            "SELECT * FROM registrations WHERE registration_id = ?", (registration_id,)
        ).fetchone()


def derived_key(group_key: str, registration_id: str) -> str:
    """A device's key in a group: base64 of HMAC-SHA256 of its registration id."""
    return base64.b64encode(sign(group_key, registration_id.encode())).decode()


def peer_certificates(connection: ssl.SSLObject) -> list[x509.Certificate]:
    """The client's own certificate; TLS has checked its key, and its chain to a certificate that is enrolled."""
    der = connection.getpeercert(binary_form=True)
    return [x509.load_der_x509_certificate(der)] if der else []


def thumbprint(certificate: x509.Certificate) -> str:
    """SHA-256, as this simulator stores it; hubs also take SHA-1."""
    return certificate.fingerprint(hashes.SHA256()).hex().upper()


def _by_certificate(
    enrolment: Enrolment, registration_id: str, certificates: list[x509.Certificate]
) -> Credentials | None:
    leaf = certificates[0]
    names = [str(attribute.value) for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [registration_id]:
        return None
    for enrolled in enrolment.certificates:
        if _signed_by(leaf, enrolled) if enrolment.is_group else leaf == enrolled:
            return Credentials(SELF_SIGNED, primary_thumbprint=thumbprint(leaf))
    return None


def _signed_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _plain(section: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if section is None else {name: value for name, value in section.items() if not name.startswith("$")}


def _refused(what: str) -> HubError:
    return HubError(401, "Unauthorized", what, advice="check id scope, registration id, key or certificate")
