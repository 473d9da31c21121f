"""Cloud-to-device messages over REST: purge a device's queue, read and settle feedback. Sending is AMQP's."""

from __future__ import annotations

from aiohttp import web

from edgeclave.simulator.rest.common import iot_hub_of, stored, target_of

FEEDBACK_TYPE = "application/vnd.microsoft.iothub.feedback.json"


def routes() -> list[web.RouteDef]:
    feedback = "/messages/serviceBound/feedback"
    return [
        web.delete("/devices/{device}/commands", _purge),
        web.get(feedback, _feedback),
        web.delete(feedback + "/{lock}", _complete),
        web.post(feedback + "/{lock}/abandon", _abandon),
    ]


async def _purge(request: web.Request) -> web.Response:
    device_id = target_of(request).device_id
    purged = iot_hub_of(request).commands.purge(device_id)
    return await stored(request, {"totalMessagesPurged": purged, "deviceId": device_id, "moduleId": None})


async def _feedback(request: web.Request) -> web.Response:
    """One batch, locked; the lock's token is the ETag, as in IoT Hub."""
    batch = iot_hub_of(request).commands.feedback()
    if batch is None:
        return web.Response(status=204)
    return web.json_response(batch.records, headers={"ETag": f'"{batch.token}"'}, content_type=FEEDBACK_TYPE)


async def _complete(request: web.Request) -> web.Response:
    iot_hub_of(request).commands.complete(request.match_info["lock"])
    return await stored(request, status=204)


async def _abandon(request: web.Request) -> web.Response:
    iot_hub_of(request).commands.abandon(request.match_info["lock"])
    return web.Response(status=204)
