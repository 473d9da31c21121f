"""IoT Hub's service side by the unmodified azure-iot-hub client: twins as plain values, failures as errors with advice.

Every request is tried again while the hub is throttling (429) or for a moment unavailable (503): the request was not
carried out then. Everything else is an error at once.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.core.exceptions import DeserializationError
from azure.iot.hub import (  # type: ignore[import-untyped]
    IoTHubConfigurationManager,
    IoTHubRegistryManager,
)
from azure.iot.hub.protocol.models import (  # type: ignore[import-untyped]
    CloudToDeviceMethod,
    Configuration,
    ConfigurationContent,
    ConfigurationQueriesTestInput,
    QuerySpecification,
)
from msrest.exceptions import ClientException, HttpOperationError

from edgeclave.cloud.connection import HubConnection
from edgeclave.errors import EdgeclaveError

REQUEST_SECONDS = 30
MAX_ATTEMPTS = 6
MAX_WAIT_SECONDS = 60  # between two attempts, whatever the hub asks for
MAX_LISTED_CONFIGURATIONS = 20  # IoT Hub's limit for one list
PAGE = 100  # twins on one page of a query, IoT Hub's limit
MAX_CLOCK_SKEW_SECONDS = 300
PING_SECONDS = 5  # the least that IoT Hub waits for an answer
_AGAIN = (429, 503)
EDGE_AGENT, EDGE_HUB = "$edgeAgent", "$edgeHub"


@dataclass(frozen=True)
class Twin:
    """A twin as the service sees it. Desired and reported keep their `$version` and `$metadata`."""

    device_id: str
    module_id: str
    desired: Mapping[str, Any] = field(default_factory=dict)
    reported: Mapping[str, Any] = field(default_factory=dict)
    configurations: Mapping[str, str] = field(default_factory=dict)
    """Status (Applied, Targeted) by the id of the configuration."""
    connection_state: str = ""
    edge_device: bool = False

    @property
    def desired_version(self) -> int:
        return int(self.desired.get("$version", 0))

    @property
    def reported_at(self) -> str:
        """When something was reported last; empty if never."""
        when = str((self.reported.get("$metadata") or {}).get("$lastUpdated") or "")
        return "" if when.startswith("0001-") else when


@dataclass(frozen=True)
class Twins:
    """All twins of one device that matter to its deployment; `modules` without $edgeAgent."""

    device: Twin
    agent: Twin
    modules: Mapping[str, Twin] = field(default_factory=dict)

    def all(self) -> dict[str, Twin]:
        return {self.agent.module_id: self.agent, **self.modules}


class RefusedByHubError(EdgeclaveError):
    """The hub's answer was no; `status` is the HTTP status."""

    def __init__(self, status: int, code: str, what: str, *, where: str, advice: str) -> None:
        super().__init__(code, what, where=where, advice=advice)
        self.status = status


class Hub:
    """One IoT Hub.

    Args:
        connection: its address and key.
        ca_file: PEM certificates to trust instead of the public ones.
        notice: told in a sentence when a request has to wait.
    """

    def __init__(self, connection: HubConnection, ca_file: Path | None, notice: Callable[[str], None]) -> None:
        self.host = connection.host
        self._notice = notice
        self._registry = IoTHubRegistryManager.from_connection_string(connection.text)
        self._configurations = IoTHubConfigurationManager.from_connection_string(connection.text)
        for client in (self._registry.protocol, self._configurations.protocol):
            client.config.connection.timeout = REQUEST_SECONDS
            if ca_file is not None:
                client.config.connection.verify = str(ca_file)
            client.config.retry_policy.retries = 0  # repeated here, where it can be said
            client.config.retry_policy.policy.status_forcelist = ()

    def twin(self, device_id: str, module_id: str = "") -> Twin | None:
        """A device's or module's twin; None when there is no such identity."""
        names = (device_id, module_id) if module_id else (device_id,)
        get = self._registry.get_module_twin if module_id else self._registry.get_twin
        try:
            return _twin(self._call("/".join(names), get, *names))
        except RefusedByHubError as refusal:
            if refusal.status == 404:
                return None
            raise

    def twins(self, device_id: str, names: Iterable[str] = ()) -> Twins | None:
        """The twins of an edge device, read one by one, for queries lag behind; None for anything else.

        Args:
            names: modules to look for besides those that are deployed.
        """
        device, agent = self.twin(device_id), self.twin(device_id, EDGE_AGENT)
        if device is None or agent is None or not device.edge_device:
            return None
        wanted = {EDGE_HUB, *names, *(agent.desired.get("modules") or {})} - {EDGE_AGENT}
        modules = {name: self.twin(device_id, name) for name in sorted(wanted)}
        return Twins(device, agent, {name: twin for name, twin in modules.items() if twin is not None})

    def answers(self, device_id: str) -> bool:
        """Whether a device's edgeAgent answers at this moment, by its own method for that."""
        ping = CloudToDeviceMethod(method_name="ping", payload={}, response_timeout_in_seconds=PING_SECONDS)
        try:
            self._call(
                f"{device_id}/{EDGE_AGENT}", self._registry.invoke_device_module_method, device_id, EDGE_AGENT, ping
            )
        except RefusedByHubError as refusal:
            if refusal.status in (404, 504):  # not connected; connected, and silent
                return False
            raise
        return True

    def query(self, text: str) -> list[Twin]:
        """All answers of a query over twins, or over some of their properties."""
        found: list[Twin] = []
        token = None
        while True:
            page = self._call("query", self._registry.query_iot_hub, QuerySpecification(query=text), token, PAGE)
            found += [_twin(item) for item in page.items or []]
            token = page.continuation_token
            if not token:
                return found

    def apply(self, device_id: str, content: Mapping[str, Any]) -> None:
        """Puts a deployment's content on one device, all of it or nothing."""
        body = ConfigurationContent(modules_content=dict(content))
        self._call(device_id, self._configurations.apply_configuration_on_edge_device, device_id, body)

    def configuration(self, configuration_id: str) -> Configuration | None:
        try:
            return self._call(configuration_id, self._configurations.get_configuration, configuration_id)
        except RefusedByHubError as refusal:
            if refusal.status == 404:
                return None
            raise

    def configurations(self) -> list[Configuration]:
        """The first ones of the hub: IoT Hub lists no more than `MAX_LISTED_CONFIGURATIONS`."""
        return list(
            self._call("configurations", self._configurations.get_configurations, MAX_LISTED_CONFIGURATIONS) or []
        )

    def put_configuration(self, configuration: Configuration, etag: str | None) -> None:
        """Creates it, or with an etag updates that one. RefusedByHubError 409 or 412 when it is another one now."""
        if etag is None:
            self._call(configuration.id, self._configurations.create_configuration, configuration)
        else:
            self._call(configuration.id, self._configurations.update_configuration, configuration, f'"{etag}"')

    def condition_problem(self, condition: str) -> str | None:
        """What the hub finds wrong with a target condition."""
        wanted = ConfigurationQueriesTestInput(target_condition=condition, custom_metric_queries={})
        answer = self._call("--target", self._configurations.test_configuration_queries, wanted)
        return answer.target_condition_error or None

    def _call(self, where: str, function: Callable[..., Any], *arguments: Any) -> Any:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return function(*arguments)
            except HttpOperationError as error:
                if error.response.status_code not in _AGAIN or attempt == MAX_ATTEMPTS:
                    raise self._refusal(error, where) from error
                wait = _wait_seconds(error.response.headers.get("Retry-After"), attempt)
                status = "throttling" if error.response.status_code == 429 else "unavailable for the moment"
                self._notice(f"the hub is {status}; asking again in {wait:g} s")
                time.sleep(wait)
            except DeserializationError as error:
                raise EdgeclaveError(
                    "not-a-hub",
                    "what answers there does not speak as IoT Hub does",
                    where=self.host,
                    advice="check HostName, and who stands between: a proxy, a sign-in page",
                ) from error
            except (ClientException, OSError) as error:  # requests' own errors are OSErrors
                raise self._unreachable(error) from error
        raise AssertionError("the last attempt returns or raises")

    def _refusal(self, error: HttpOperationError, where: str) -> RefusedByHubError:
        response = error.response
        code, advice = _REASONS.get(response.status_code, ("refused-by-hub", ""))
        skew = _skew_seconds(response.headers.get("Date"))
        if response.status_code == 401 and abs(skew) > MAX_CLOCK_SKEW_SECONDS:
            advice = f"this machine's clock is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead'}: set it right"
        said = _message(response.text)
        return RefusedByHubError(
            response.status_code,
            code,
            f"the hub refused it with {response.status_code}{f': {said}' if said else ''}",
            where=where,
            advice=advice,
        )

    def _unreachable(self, error: Exception) -> EdgeclaveError:
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text or "TLS CA certificate bundle" in text:
            return EdgeclaveError(
                "hub-not-trusted",
                "the hub's certificate is not signed by an authority that is trusted here",
                where=self.host,
                advice="for a simulator give --ca with its root certificate; for Azure ask who stands in between",
            )
        kind = "did not answer in time" if "timed out" in text.lower() else "cannot be reached"
        return EdgeclaveError(
            "hub-unreachable",
            f"the hub {kind}",
            where=self.host,
            advice="check HostName, the network and the proxy settings, then run the same command again",
        )


_REASONS = {
    400: ("refused-by-hub", "correct what the message names"),
    401: (
        "hub-unauthorized",
        "check the key, that the policy may write the registry and connect as a service, and this machine's clock",
    ),
    403: ("hub-forbidden", "use a policy with the rights registry write and service connect; see the hub's quota"),
    404: ("not-in-hub", "check the spelling, and that it is this hub"),
    409: ("changed-meanwhile", "look at the difference, then run the command again"),
    412: ("changed-meanwhile", "look at the difference, then run the command again"),
    413: ("too-large", "make the deployment smaller: a twin's desired properties have 32 KB"),
    429: ("hub-throttling", "wait a minute, then run the same command again"),
}


def _twin(item: Any) -> Twin:
    document = {**(item.additional_properties or {}), **item.serialize(keep_readonly=True)}  # the SDK knows not all
    properties = document.get("properties") or {}
    more = {name: entry.get("status", "") for name, entry in (document.get("configurations") or {}).items()}
    return Twin(
        str(document.get("deviceId") or ""),
        str(document.get("moduleId") or ""),
        properties.get("desired") or {},
        properties.get("reported") or {},
        more,
        str(document.get("connectionState") or ""),
        bool((document.get("capabilities") or {}).get("iotEdge")),
    )


def _wait_seconds(retry_after: str | None, attempt: int) -> float:
    asked = float(retry_after) if retry_after and retry_after.isdecimal() else 2.0**attempt
    return min(max(asked, 0.5), MAX_WAIT_SECONDS)


def _skew_seconds(date: str | None) -> float:
    """How far the hub's clock is ahead of this machine's."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time() if date else 0.0
    except ValueError:
        return 0.0


def _message(text: str) -> str:
    """What the hub says, without tracking ids; cut, for it may repeat all that was sent."""
    try:
        document = json.loads(text)
        said = str(document.get("Message") or document.get("message") or "")
    except (ValueError, AttributeError):
        said = text
    return said.partition("Tracking ID")[0].strip()[:500]
