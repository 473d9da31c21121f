"""The link with both its real ends over real TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from edgeclave.edge.identity import ModuleIdentity, expect_server
from edgeclave.edge.link import (
    Acknowledge,
    AcknowledgeReply,
    Call,
    CallReply,
    EvidenceReply,
    GetEvidence,
    LinkClient,
    LinkError,
    LinkServer,
    List,
    ListReply,
    Reply,
    Request,
    SealedResult,
)
from edgeclave.edge.link.messages import LINK_PROTOCOL, MAX_IN_FLIGHT, MAX_MESSAGE_BYTES
from edgeclave.errors import EnclaveError
from tests.fixtures.certificates import DEVICE, HUB, Authority, Leaf
from tests.fixtures.connect_proxy import Proxy
from tests.fixtures.waiting import eventually

BROKER = ModuleIdentity(HUB, DEVICE, "enclave_broker")
URL = "https://ta_runner:8444/link"


def call(payload: str = "{}", call_id: str = "1") -> Call:
    return Call(
        trusted_app="anomaly", method="observe", payload=payload, call_id=call_id, caller=str(BROKER), deadline_ms=5000
    )


class Runner:
    """Answers like ta_runner would, when `gate` is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.seen: list[Request] = []

    async def __call__(self, request: Request) -> Reply:
        self.seen.append(request)
        await self.gate.wait()
        match request:
            case Call(method="wrong-kind"):
                return ListReply(trusted_apps={})
            case Call(method="fails"):
                raise RuntimeError("secret detail")
            case Call(method="refuses"):
                raise LinkError("not-stored", "the disk is full", where="store", advice="free space", retry_after=3)
            case Call(method="traps"):
                raise EnclaveError("enclave-ended", "the enclave ended")
            case Call(method="large"):
                return CallReply(status=200, payload="x" * MAX_MESSAGE_BYTES)
            case Call():
                results = (SealedResult(output="out", sequence=1, sealed=b"\x00\x01"),)
                return CallReply(status=200, payload=request.payload, results=results)
            case Acknowledge():
                return AcknowledgeReply(count=len(request.call_ids))
            case GetEvidence():
                return EvidenceReply(evidence=request.nonce or b"")
            case List():
                return ListReply(trusted_apps={})


@asynccontextmanager
async def serving(
    authority: Authority, proxy: Proxy, handler: Callable[[Request], Awaitable[Reply]], leaf: Leaf | None = None
) -> AsyncIterator[LinkServer]:
    server = LinkServer(handler, authority.server_context(leaf or authority.server("ta_runner")), BROKER)
    proxy.ports["ta_runner"] = await server.start("127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.stop()


def client(authority: Authority, leaf: Leaf | None = None) -> LinkClient:
    leaf = leaf or authority.module("enclave_broker")
    return LinkClient(URL, authority.client_context(leaf), server_name="ta_runner")


async def up(link: LinkClient, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        await link.wait_until_up()


async def test_every_request_gets_its_reply(authority: Authority, proxy: Proxy) -> None:
    async with serving(authority, proxy, Runner()), client(authority) as link:
        await up(link)
        reply = await link.request(call('{"a":1}'), timeout_seconds=30)
        assert (reply.status, reply.payload, reply.results[0].sealed) == (200, '{"a":1}', b"\x00\x01")
        acknowledge = Acknowledge(trusted_app="a", call_ids=("1", "2"), caller="iothub")
        assert (await link.request(acknowledge, timeout_seconds=30)).count == 2
        evidence = GetEvidence(trusted_app="a", nonce=b"12345678")
        assert (await link.request(evidence, timeout_seconds=30)).evidence == b"12345678"
        assert (await link.request(List(), timeout_seconds=30)).trusted_apps == {}


async def test_many_requests_are_in_flight_and_come_back_to_who_asked(authority: Authority, proxy: Proxy) -> None:
    async def out_of_order(request: Request) -> Reply:
        assert isinstance(request, Call)
        await asyncio.sleep(0.05 / (1 + int(request.payload)))
        return CallReply(status=200, payload=request.payload)

    async with serving(authority, proxy, out_of_order), client(authority) as link:
        await up(link)
        replies = await asyncio.gather(*(link.request(call(str(n)), timeout_seconds=30) for n in range(200)))
        assert [reply.payload for reply in replies] == [str(n) for n in range(200)]
        assert link.in_flight == 0


@pytest.mark.parametrize(
    ("method", "code", "retry_after"),
    [
        pytest.param("refuses", "not-stored", 3, id="the runner's problem"),
        pytest.param("traps", "enclave-ended", None, id="any error of ours"),
        pytest.param("fails", "internal-error", 1, id="a bug stays inside"),
        pytest.param("large", "message-too-large", None, id="an answer that does not fit"),
    ],
)
async def test_problems(authority: Authority, proxy: Proxy, method: str, code: str, retry_after: float | None) -> None:
    async with serving(authority, proxy, Runner()), client(authority) as link:
        await up(link)
        request = call()
        request.method = method
        with pytest.raises(LinkError) as caught:
            await link.request(request, timeout_seconds=30)
        assert (caught.value.code, caught.value.retry_after) == (code, retry_after)
        assert "secret" not in str(caught.value)
        assert (await link.request(call(), timeout_seconds=30)).status == 200


async def test_a_timeout_is_one_requests_own(authority: Authority, proxy: Proxy) -> None:
    runner = Runner()
    async with serving(authority, proxy, runner), client(authority) as link:
        await up(link)
        runner.gate.clear()
        with pytest.raises(LinkError) as caught:
            await link.request(call(), timeout_seconds=0.05)
        assert caught.value.code == "link-timeout"
        runner.gate.set()
        assert (await link.request(call("2"), timeout_seconds=30)).payload == "2"


async def test_pending_requests_are_bounded(authority: Authority, proxy: Proxy) -> None:
    runner = Runner()
    async with serving(authority, proxy, runner), client(authority) as link:
        await up(link)
        runner.gate.clear()
        waiting = [asyncio.create_task(link.request(call(str(n)), timeout_seconds=30)) for n in range(MAX_IN_FLIGHT)]
        await asyncio.sleep(0)
        with pytest.raises(LinkError) as caught:
            await link.request(call(), timeout_seconds=30)
        assert (caught.value.code, caught.value.retry_after) == ("link-busy", 1.0)
        runner.gate.set()
        await asyncio.gather(*waiting)


async def test_a_lost_connection_fails_what_waits_and_comes_back(authority: Authority, proxy: Proxy) -> None:
    runner = Runner()
    async with serving(authority, proxy, runner), client(authority) as link:
        await up(link)
        runner.gate.clear()
        waiting = asyncio.create_task(link.request(call(), timeout_seconds=30))
        await eventually(lambda: runner.seen)
        proxy.cut()
        with pytest.raises(LinkError) as caught:
            await waiting
        assert (caught.value.code, caught.value.retry_after) == ("link-lost", 1.0)
        runner.gate.set()
        await up(link)
        assert (await link.request(call("again"), timeout_seconds=30)).payload == "again"


async def test_without_a_runner_requests_fail_at_once_and_work_when_it_comes(
    authority: Authority, proxy: Proxy
) -> None:
    async with client(authority) as link:
        await asyncio.sleep(0.2)
        with pytest.raises(LinkError) as caught:
            await link.request(call(), timeout_seconds=30)
        assert (caught.value.code, caught.value.retry_after) == ("link-down", 1.0)
        async with serving(authority, proxy, Runner()):
            await up(link)
            assert (await link.request(call(), timeout_seconds=30)).status == 200


async def test_a_stopping_runner_lets_requests_end(authority: Authority, proxy: Proxy) -> None:
    runner = Runner()
    async with client(authority) as link:
        async with serving(authority, proxy, runner) as server:
            await up(link)
            runner.gate.clear()
            waiting = asyncio.create_task(link.request(call(), timeout_seconds=30))
            await eventually(lambda: runner.seen)
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(0.05)
            with pytest.raises(LinkError) as caught:
                await link.request(call(), timeout_seconds=30)
            assert caught.value.code == "link-busy"
            runner.gate.set()
            assert (await waiting).status == 200
            await stopping
        assert not link.up


@pytest.mark.parametrize(
    ("server", "caller", "reason"),
    [
        pytest.param(None, lambda a: a.module("sample_analytics"), "refuses this module's identity", id="other module"),
        pytest.param(None, lambda a: a.module("enclave_broker", device="d2"), "refuses this module", id="other device"),
        pytest.param(None, lambda a: a.issue("enclave_broker"), "refuses this module", id="common name only"),
        pytest.param(lambda a: a.server("ta_runner", "evil"), None, "also names evil", id="an impostor's certificate"),
        pytest.param(lambda a: a.server("evil"), None, "Hostname mismatch", id="another server"),
    ],
)
async def test_wrong_ends_never_meet(
    authority: Authority,
    proxy: Proxy,
    server: Callable[[Authority], Leaf] | None,
    caller: Callable[[Authority], Leaf] | None,
    reason: str,
) -> None:
    runner = Runner()
    server_leaf = server(authority) if server else None
    caller_leaf = caller(authority) if caller else None
    async with serving(authority, proxy, runner, server_leaf), client(authority, caller_leaf) as link:
        await eventually(lambda: reason in link.reason)
        assert not link.up
        assert runner.seen == []


async def test_a_reply_of_another_kind_ends_the_connection(authority: Authority, proxy: Proxy) -> None:
    async with serving(authority, proxy, Runner()), client(authority) as link:
        await up(link)
        request = call()
        request.method = "wrong-kind"
        with pytest.raises(LinkError) as caught:
            await link.request(request, timeout_seconds=30)
        assert caught.value.code == "link-lost"
        await up(link)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\xff\x00garbage", id="garbage"),
        pytest.param("text", id="a text frame"),
        pytest.param(b"\x00" * (MAX_MESSAGE_BYTES + 1), id="a frame beyond the limit"),
    ],
)
async def test_garbage_ends_only_its_own_connection(authority: Authority, proxy: Proxy, frame: bytes | str) -> None:
    runner = Runner()
    async with serving(authority, proxy, runner), client(authority) as link, _raw(authority) as raw:
        await up(link)
        with contextlib.suppress(ConnectionError):
            await (raw.send_str(frame) if isinstance(frame, str) else raw.send_bytes(frame))
        message = await raw.receive(timeout=30)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert runner.seen == []
        assert (await link.request(call(), timeout_seconds=30)).status == 200


async def test_another_protocol_is_refused(authority: Authority, proxy: Proxy) -> None:
    async with serving(authority, proxy, Runner()):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with _raw(authority, "edgeclave-link-2"):
                pass
        assert caught.value.status == 400


@asynccontextmanager
async def _raw(authority: Authority, protocol: str = LINK_PROTOCOL) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    context = authority.client_context(authority.module("enclave_broker"))
    expect_server(context, "ta_runner")
    async with (
        aiohttp.ClientSession(trust_env=True) as session,
        session.ws_connect(URL, ssl=context, protocols=(protocol,)) as connection,
    ):
        yield connection
