"""The client against a broker that answers wrongly, late, or not at all."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from edgeclave.client import MAX_ANSWER_BYTES, BrokerUnavailable, CallRefused, Client, TrustedAppFailure
from edgeclave.edge.certificates import CertificateKeeper
from tests.fixtures.certificates import Authority
from tests.fixtures.connect_proxy import Proxy

GOOD = {"callId": "c", "status": 200, "payload": [1], "results": [{"output": "o", "sequence": 1, "sealed": "AP8="}]}


class FixedCertificate(CertificateKeeper):
    """Gives a certificate of the test's authority, which needs no renewal."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    async def client_context(self) -> ssl.SSLContext:
        return self._authority.client_context(self._authority.module("sample_analytics"))

    async def run(self) -> None:
        return None


@dataclass
class Script:
    """Answers in turn; the last one for ever."""

    answers: list[Callable[[], web.Response | None]] = field(default_factory=list)
    requests: list[web.Request] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.requests.append(request)
        answer = self.answers.pop(0)() if len(self.answers) > 1 else self.answers[0]()
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
        return answer or web.Response()


def good() -> web.Response:
    return web.json_response(GOOD)


def error(status: int, code: str, **headers: str) -> Callable[[], web.Response]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"error": {"code": code, "what": f"it is {code}", "advice": "do this"}}
    return lambda: web.json_response(body, status=status, headers=names)


def cut() -> None:
    """No answer: the connection breaks."""


@pytest.fixture
async def script(authority: Authority, proxy: Proxy) -> AsyncIterator[Script]:
    made = Script()
    application = web.Application()
    application.router.add_post("/{path:.*}", made.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    context = authority.server_context(authority.server("enclave_broker"))
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    proxy.ports["enclave_broker"] = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def client(authority: Authority) -> AsyncIterator[Client]:
    async with Client(FixedCertificate(authority)) as made:
        yield made


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(error(503, "link-down"), id="the runner is away"),
        pytest.param(error(429, "too-many-requests"), id="too many requests"),
        pytest.param(error(504, "link-timeout"), id="no answer in time"),
        pytest.param(error(403, "certificate-expired"), id="the connection outlived its certificate"),
        pytest.param(cut, id="the connection breaks"),
        pytest.param(lambda: web.Response(text="{"), id="half an answer"),
        pytest.param(lambda: web.json_response({"status": "200"}), id="another answer"),
        pytest.param(lambda: web.Response(status=500, text="<html>"), id="an error in another form"),
        pytest.param(lambda: web.Response(body=b" " * (MAX_ANSWER_BYTES + 1)), id="an endless answer"),
    ],
)
async def test_it_repeats_with_the_same_call_id(
    script: Script, client: Client, bad: Callable[[], web.Response | None]
) -> None:
    script.answers = [bad, bad, good]
    outcome = await client.invoke("anomaly", "observe", {"a": 1})
    assert (outcome.payload, outcome.results[0].sealed) == ([1], b"\x00\xff")
    ids = {request.headers["Edgeclave-Call-Id"] for request in script.requests}
    assert (len(script.requests), len(ids)) == (3, 1)


async def test_it_waits_as_long_as_it_is_told(script: Script, client: Client) -> None:
    script.answers = [error(503, "queue-full", Retry_After="1"), good]
    started = time.monotonic()
    await client.invoke("anomaly", "observe", None)
    assert time.monotonic() - started >= 1.0


@pytest.mark.parametrize(
    ("status", "code"), [(400, "payload-not-json"), (403, "denied"), (404, "unknown-trusted-app"), (413, "too-large")]
)
async def test_what_will_not_change_is_not_repeated(script: Script, client: Client, status: int, code: str) -> None:
    script.answers = [error(status, code)]
    with pytest.raises(CallRefused) as caught:
        await client.invoke("anomaly", "observe", None)
    assert (caught.value.status, caught.value.code, caught.value.advice) == (status, code, "do this")
    assert len(script.requests) == 1


async def test_a_failure_of_the_trusted_application(script: Script, client: Client) -> None:
    script.answers = [lambda: web.json_response({"callId": "c", "status": 422, "message": "no sensor", "results": []})]
    with pytest.raises(TrustedAppFailure) as caught:
        await client.invoke("anomaly", "observe", None)
    assert (caught.value.status, caught.value.message, caught.value.where) == (422, "no sensor", "anomaly/observe")
    assert len(script.requests) == 1


async def test_it_gives_up_with_the_last_reason(script: Script, client: Client) -> None:
    script.answers = [error(503, "link-down", Retry_After="60")]
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable) as caught:
        await client.invoke("anomaly", "observe", None, total_seconds=0.4)
    assert time.monotonic() - started < 30
    assert "it is link-down" in caught.value.what
    assert "same call id" in caught.value.advice
    assert int(script.requests[0].headers["Edgeclave-Deadline-Ms"]) <= 400


async def test_no_broker_at_all(client: Client, proxy: Proxy) -> None:
    with pytest.raises(BrokerUnavailable):
        await client.acknowledge("anomaly", ["c"], total_seconds=0.3)


async def test_an_impostor_hears_nothing(script: Script, client: Client, authority: Authority, proxy: Proxy) -> None:
    runner = web.AppRunner(web.Application(), access_log=None)
    await runner.setup()
    context = authority.server_context(authority.server("enclave_broker", "hostile"))
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    proxy.ports["enclave_broker"] = runner.addresses[0][1]
    with pytest.raises(BrokerUnavailable, match="also names hostile"):
        await client.invoke("anomaly", "observe", None, total_seconds=0.3)
    await runner.cleanup()
