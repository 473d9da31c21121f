"""The operator's side: the unmodified azure-iot-hub client, in a process of its own.

A process of its own because that client takes its CA from REQUESTS_CA_BUNDLE, which is for a whole process. The request
comes in on standard input, so that the connection string stands in no argument list.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import msgspec

from edgeclave.errors import ConfigurationError

REQUEST_SECONDS = 60  # beyond what the order itself may take
_SEE_LOG = "see `edgeclave sim logs simulator`"
_ADVICE = {
    400: "correct what the message names",
    404: "`edgeclave sim status` says which modules there are, and which are connected",
    413: "send less",
    504: "see `edgeclave sim logs MODULE`, or give it more time with --timeout",
}


class ApplyDeployment(msgspec.Struct, tag=True, rename="camel"):
    """Applies a manifest to one device."""

    device_id: str
    modules_content: dict[str, Any]


class EnsureModule(msgspec.Struct, tag=True, rename="camel"):
    """Creates a module's identity; it may be there already."""

    device_id: str
    module_id: str


class GetTwin(msgspec.Struct, tag=True, rename="camel"):
    """Reads a twin; the module id is empty for the device's own."""

    device_id: str
    module_id: str


class PatchTwin(msgspec.Struct, tag=True, rename="camel"):
    """Merges into desired properties and tags, or replaces both."""

    device_id: str
    module_id: str
    desired: dict[str, Any] | None
    tags: dict[str, Any] | None
    replace: bool


class InvokeMethod(msgspec.Struct, tag=True, rename="camel"):
    """Calls a direct method and answers {"status", "payload"}."""

    device_id: str
    module_id: str
    name: str
    payload: Any
    response_seconds: int
    connect_seconds: int


Order = ApplyDeployment | EnsureModule | GetTwin | PatchTwin | InvokeMethod


class _Request(msgspec.Struct, rename="camel"):
    connection_string: str
    order: Order


class _Answer(msgspec.Struct):
    """HTTP status and message of what failed; 0 when nothing did."""

    status: int
    message: str
    value: Any = None


async def carry_out(order: Order, *, connection_string: str, ca_file: str) -> Any:
    """Runs this file as a process; what the order asks for, None for most.

    Raises:
        ConfigurationError: `refused-by-hub` with the hub's reason, `service-client-failed`.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath, "REQUESTS_CA_BUNDLE": ca_file, "NETRC": os.devnull},
    )
    try:
        async with asyncio.timeout(REQUEST_SECONDS + _patience(order)):
            output, errors = await process.communicate(msgspec.json.encode(_Request(connection_string, order)))
    except TimeoutError as error:
        raise _failed(f"azure-iot-hub took over {REQUEST_SECONDS} s", order) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        answer = msgspec.json.decode(output, type=_Answer)
    except msgspec.DecodeError as error:
        last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise _failed(f"azure-iot-hub could not be run: {last[:300]}", order) from error
    if answer.status:
        raise _refused(answer, order)
    return answer.value


def _patience(order: Order) -> int:
    return order.response_seconds + order.connect_seconds if isinstance(order, InvokeMethod) else 0


def _refused(answer: _Answer, order: Order) -> ConfigurationError:
    name, _, what = answer.message.removeprefix("ErrorCode:").partition(";")
    return ConfigurationError(
        "refused-by-hub",
        f"the hub refused it: {what} ({answer.status} {name})",
        where=_target(order),
        advice=_ADVICE.get(answer.status, _SEE_LOG),
    )


def _failed(what: str, order: Order) -> ConfigurationError:
    return ConfigurationError("service-client-failed", what, where=_target(order), advice=_SEE_LOG)


def _target(order: Order) -> str:
    return "/".join(filter(None, (order.device_id, getattr(order, "module_id", ""))))


def main() -> None:
    """The process: carries out the one request on standard input."""
    from msrest.exceptions import HttpOperationError

    request = msgspec.json.decode(sys.stdin.buffer.read(), type=_Request)
    answer = _Answer(0, "")
    try:
        answer.value = _call(request)
    except HttpOperationError as error:
        answer = _Answer(error.response.status_code, _message(error.response.text))
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def _call(request: _Request) -> Any:
    from azure.iot.hub import (  # type: ignore[import-untyped]
        IoTHubConfigurationManager,
        IoTHubRegistryManager,
    )
    from azure.iot.hub.protocol.models import ConfigurationContent  # type: ignore[import-untyped]

    order = request.order
    if isinstance(order, ApplyDeployment):
        configurations = IoTHubConfigurationManager.from_connection_string(request.connection_string)
        content = ConfigurationContent(modules_content=order.modules_content)
        configurations.apply_configuration_on_edge_device(order.device_id, content)
        return None
    registry = IoTHubRegistryManager.from_connection_string(request.connection_string)
    if isinstance(order, EnsureModule):
        return _ensure_module(registry, order)
    if isinstance(order, InvokeMethod):
        return _invoke(registry, order)
    return _twin(registry, order)


def _ensure_module(registry: Any, order: EnsureModule) -> None:
    from msrest.exceptions import HttpOperationError

    try:
        registry.create_module_with_sas(order.device_id, order.module_id, "", "", "")
    except HttpOperationError as error:
        if error.response.status_code != 409:  # there already
            raise


def _invoke(registry: Any, order: InvokeMethod) -> dict[str, Any]:
    from azure.iot.hub.protocol.models import CloudToDeviceMethod

    method = CloudToDeviceMethod(
        method_name=order.name,
        payload=order.payload,
        response_timeout_in_seconds=order.response_seconds,
        connect_timeout_in_seconds=order.connect_seconds,
    )
    answer = registry.invoke_device_module_method(order.device_id, order.module_id, method)
    return {"status": answer.status, "payload": answer.payload}


def _twin(registry: Any, order: GetTwin | PatchTwin) -> Any:
    from azure.iot.hub.protocol.models import Twin, TwinProperties

    names = (order.device_id, order.module_id) if order.module_id else (order.device_id,)
    kind = "module_twin" if order.module_id else "twin"
    if isinstance(order, GetTwin):
        return getattr(registry, f"get_{kind}")(*names).serialize()
    properties = None if order.desired is None else TwinProperties(desired=order.desired)
    change = getattr(registry, f"{'replace' if order.replace else 'update'}_{kind}")
    return change(*names, Twin(properties=properties, tags=order.tags), "*").serialize()


def _message(text: str) -> str:
    try:
        return str(msgspec.json.decode(text)["Message"])[:2000]
    except (msgspec.DecodeError, KeyError, TypeError):
        return text[:2000]


if __name__ == "__main__":
    main()
