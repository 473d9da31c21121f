"""edgeAgent's uploads, against a receiver that checks what a storage account would."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import ssl
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.simulator import Simulator
from edgeclave.simulator.supervisor.agent_methods import AgentLink
from tests.fixtures.certificates import SERVER, Authority

AGENT = IdentityName("edge01", "$edgeAgent")
SIGNATURE = "sv=2021-08-06&sr=c&sp=cw&sig=a%2Fb%2Bc%3D"


@dataclass
class Storage:
    """Takes block blobs whose signature came as it was given."""

    answers: list[int] = field(default_factory=list)  # instead of taking them, first
    blobs: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    url: str = ""

    async def put(self, request: web.Request) -> web.Response:
        if self.answers:
            return web.Response(status=self.answers.pop(0), headers={"x-ms-error-code": "ServerBusy"})
        if request.raw_path.partition("?")[2] != SIGNATURE or request.headers.get("x-ms-blob-type") != "BlockBlob":
            return web.Response(status=403, headers={"x-ms-error-code": "AuthenticationFailed"})
        self.blobs[request.path] = (await request.read(), dict(request.headers))
        return web.Response(status=201)


@pytest.fixture
async def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Storage]:
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (tmp_path / "server.pem").write_bytes(
        authority.issue("storage", names=[x509.DNSName("localhost")], usage=(SERVER,)).pem
    )
    context.load_cert_chain(tmp_path / "server.pem")
    (tmp_path / "root.pem").write_bytes(authority.root.public_bytes(serialization.Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    made = Storage()
    application = web.Application()
    application.router.add_put("/{path:.*}", made.put)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    made.url = f"https://localhost:{runner.addresses[0][1]}/account/logs?{SIGNATURE}"
    yield made
    await runner.cleanup()


class Module:
    """Only what the agent's methods ask of a module."""

    def __init__(self, log_file: Path) -> None:
        self.log_file = log_file

    def start(self) -> None: ...

    async def stop(self) -> None: ...


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Simulator]:
    async with Simulator.running(tmp_path / "sim") as simulator:
        logs = simulator.state.directory / "logs"
        logs.mkdir()
        (logs / "press.log").write_text("<6> one\n<4> two\n")
        (logs / "simulator.log").write_text("routing\n")
        link = AgentLink(AGENT, simulator.hub.methods, lambda: {"press": Module(logs / "press.log")})
        link.start(simulator.state)
        simulator.hub.links.attach(AGENT, link)
        simulator.state.twins.patch_reported(
            AGENT, {"modules": {"press": {"exitCode": 3, "env": {"P": {"value": "s3"}}}}}
        )
        yield simulator
        simulator.hub.links.detach(AGENT, link)
        link.disconnect("the test ends")


async def call(device: Simulator, name: str, **payload: Any) -> Any:
    return (await device.hub.methods.invoke(AGENT, name, {"schemaVersion": "1.0", **payload})).payload


async def outcome(device: Simulator, started: Any) -> dict[str, str]:
    assert started["status"] in ("Running", "Completed")
    for _ in range(200):
        state: dict[str, str] = await call(device, "GetTaskStatus", correlationId=started["correlationId"])
        if state["status"] != "Running":
            break
        await asyncio.sleep(0.05)
    return state


async def test_logs_are_put_under_the_names_that_edge_agent_gives_them(device: Simulator, storage: Storage) -> None:
    item = {"id": "press", "filter": {"loglevel": 4}}
    started = await call(
        device, "UploadModuleLogs", sasUrl=storage.url, items=[item], encoding="gzip", contentType="json"
    )
    assert await outcome(device, started) == {**started, "status": "Completed", "message": ""}
    ((path, (data, headers)),) = storage.blobs.items()
    assert path.startswith(f"/account/logs/{device.settings.hub_host}/edge01/press-20")
    assert path.endswith(".json.gz")
    assert headers["Content-Type"] == "application/json"
    assert headers["x-ms-blob-content-encoding"] == "gzip"
    (line,) = json.loads(gzip.decompress(data))
    assert (line["id"], line["device"], line["loglevel"], line["text"]) == ("press", "edge01", 4, "two")


async def test_a_support_bundle_has_logs_and_reports_and_no_environment(device: Simulator, storage: Storage) -> None:
    started = await call(device, "UploadSupportBundle", sasUrl=storage.url, since="1d")
    assert (await outcome(device, started))["status"] == "Completed"
    ((path, (data, headers)),) = storage.blobs.items()
    assert "/edge01/support-bundle-" in path
    assert headers["Content-Type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert set(archive.namelist()) == {
        "about.json", "logs/press.log", "logs/edgeAgent.log", "logs/edgeHub.log", "reported/edgeAgent.json",
        "reported/edgeHub.json",
    }  # fmt: skip
    assert archive.read("logs/press.log") == b"<6> one\n<4> two"
    assert json.loads(archive.read("reported/edgeAgent.json"))["modules"] == {"press": {"exitCode": 3}}
    runtime = await call(device, "UploadSupportBundle", sasUrl=storage.url, edgeRuntimeOnly=True)
    assert (await outcome(device, runtime))["status"] == "Completed"
    assert b"press.log" not in list(storage.blobs.values())[-1][0]


async def test_a_busy_storage_is_asked_again(
    device: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeclave.simulator.supervisor.uploads.RETRY_SECONDS", (0.05, 0.05))
    storage.answers = [503, 500]
    started = await call(device, "UploadModuleLogs", sasUrl=storage.url, items={"id": "press"})
    assert (await outcome(device, started))["status"] == "Completed"
    storage.answers = [503, 500, 503]
    failed = await outcome(device, await call(device, "UploadModuleLogs", sasUrl=storage.url, items={"id": "press"}))
    assert failed["status"] == "Failed"
    assert "localhost answered 503 ServerBusy" in failed["message"]


async def test_a_refused_signature_is_told_and_never_shown(
    device: Simulator, storage: Storage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeclave.simulator.supervisor.uploads.RETRY_SECONDS", ())
    url = storage.url.replace("sig=a", "sig=SECRET")
    failed = await outcome(device, await call(device, "UploadModuleLogs", sasUrl=url, items={"id": "press"}))
    assert failed["status"] == "Failed"
    assert "localhost answered 403 AuthenticationFailed" in failed["message"]
    unreachable = "https://localhost:1/logs?sig=SECRET"
    failed = await outcome(device, await call(device, "UploadSupportBundle", sasUrl=unreachable))
    assert "localhost cannot be reached" in failed["message"]
    assert "403 AuthenticationFailed" in caplog.text
    assert "SECRET" not in str(failed) + caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "",
        "logs",
        "https://host",
        "ftp://host/logs?sig=x",
        "http://storage.example/logs?sig=x",
        "https://host/" + "x" * 5000,
    ],
    ids=["nothing", "no address", "no container", "ftp", "plain http", "too long"],
)
async def test_what_is_no_container_is_refused(device: Simulator, url: str) -> None:
    answer = await call(device, "UploadModuleLogs", sasUrl=url, items={"id": "press"})
    assert "sasUrl" in answer["message"]


async def test_an_unknown_task_is_unknown(device: Simulator) -> None:
    status = await call(device, "GetTaskStatus", correlationId="x")
    assert status == {"status": "Unknown", "message": "", "correlationId": "x"}


async def test_more_logs_than_a_method_can_answer_are_refused_with_advice(device: Simulator) -> None:
    (device.state.directory / "logs/press.log").write_text("x" * 130_000)
    answer = await call(device, "GetModuleLogs", items={"id": "press"})
    assert "UploadModuleLogs" in answer["message"]
    assert await call(device, "GetModuleLogs", items={"id": "press", "filter": {"tail": 0}}) == [
        {"id": "press", "payload": "", "payloadBytes": None}
    ]
