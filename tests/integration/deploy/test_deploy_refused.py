"""`edgeclave deploy` where it cannot: what is given, what the hub says, and no hub at all."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]

from edgeclave.cli.main import run
from edgeclave.cloud.connection import HUB_VARIABLE, parse_hub
from edgeclave.cloud.deployment.hub import Hub
from edgeclave.errors import EdgeclaveError
from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.pki import Pki
from tests.integration.deploy.conftest import Deploy, Solution

KEY = "c2VjcmV0IG9mIHRoZSBodWI="


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param([], "bad-usage", id="neither a device nor a deployment's id"),
        pytest.param(["--device", "a", "--config-id", "b"], "bad-usage", id="both"),
        pytest.param(["--config-id", "b"], "bad-usage", id="no target"),
        pytest.param(["--device", "a", "--layered"], "bad-usage", id="a whole deployment that was to be a layer"),
        pytest.param(["--device", "a", "--label", "north"], "bad-usage", id="a label without a value"),
        pytest.param(["--device", "a", "--ca", "nothing.pem"], "file-unreadable", id="no such CA file"),
        pytest.param(["--device", "a", "--ca", __file__], "bad-certificates", id="CA file that holds no certificate"),
        pytest.param(["nothing.json", "--device", "a"], "no-such-template", id="no such template"),
        pytest.param(["--device", "a", "--hub", "@nothing"], "connection-string-unreadable", id="no such hub file"),
        pytest.param(["--device", "a", "--hub", "HostName=x"], "bad-connection-string", id="half a connection string"),
    ],
)
def test_what_cannot_be_read_is_named(
    solution: Solution, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: Any, code: str
) -> None:
    solution.template()
    monkeypatch.chdir(solution.folder)
    monkeypatch.setenv(HUB_VARIABLE, f"HostName=127.0.0.1:9;SharedAccessKeyName=n;SharedAccessKey={KEY}")
    assert run(["deploy", *arguments]) == 2
    assert f"[{code}]" in capsys.readouterr().err


def test_a_variable_that_is_not_defined_is_not_deployed(
    simulator: SimulatorThread, solution: Solution, deploy: Deploy
) -> None:
    template = solution.template(env={"GREETING": {"value": "$NOBODY_SET_THIS"}})
    done = deploy(template, "--device", "edge01", "--yes")
    assert (done.code, "undefined-variable" in done.err, "NOBODY_SET_THIS" in done.err) == (2, True, True)


def test_what_the_hub_does_not_have(
    simulator: SimulatorThread, solution: Solution, deploy: Deploy, registry: IoTHubRegistryManager
) -> None:
    template = solution.template()
    registry.create_device_with_sas("leaf", "", "", "enabled")
    assert "[no-such-device]" in deploy(template, "--device", "egde01").err
    assert "[not-an-edge-device]" in deploy(template, "--device", "leaf").err
    condition = deploy(template, "--config-id", "x", "--target", "tags.role = ")
    assert (condition.code, "[bad-target]" in condition.err) == (1, True)


@pytest.mark.parametrize("policy", ["service", "registryRead"])
def test_a_policy_without_the_right_changes_nothing(
    simulator: SimulatorThread, solution: Solution, tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    secret = tmp_path / "weak.txt"
    secret.write_text(simulator.call(lambda running: running.connection_string("service", policy)))
    arguments = ["--hub", f"@{secret}", "--ca", simulator.ca_file, "--device", "edge01", "--yes"]
    assert run(["deploy", str(solution.template()), *arguments]) == 1
    error = capsys.readouterr().err
    assert "[hub-unauthorized]" in error or "[hub-forbidden]" in error
    assert "registry" in error


def test_a_wrong_key_and_an_unknown_authority(simulator: SimulatorThread, tmp_path: Path) -> None:
    host = simulator.connection_string("service").partition(";")[0]
    wrong = parse_hub(f"{host};SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}")
    with pytest.raises(EdgeclaveError) as refused:
        Hub(wrong, Path(simulator.ca_file), print).twin("edge01")
    assert refused.value.code == "hub-unauthorized"
    with pytest.raises(EdgeclaveError) as refused:
        Hub(wrong, None, print).twin("edge01")
    assert (refused.value.code, "--ca" in refused.value.advice) == ("hub-not-trusted", True)


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        nowhere = parse_hub(f"HostName=127.0.0.1:{port};SharedAccessKeyName=n;SharedAccessKey={KEY}")
        with pytest.raises(EdgeclaveError) as refused:
            Hub(nowhere, None, print).twin("edge01")
    assert (refused.value.code, refused.value.where) == ("hub-unreachable", f"127.0.0.1:{port}")


class Answers(http.server.BaseHTTPRequestHandler):
    """Gives the server's prepared answers in turn: status, headers, body."""

    def do_GET(self) -> None:
        status, headers, body = self.server.answers.pop(0)  # type: ignore[attr-defined]
        data = json.dumps(body).encode()
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Not here."""


Prepared = Callable[..., tuple[Hub, list[str]]]


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Prepared]:
    """A hub that answers what it is told to, for what the simulator never says, and the notices of its client."""
    pki = Pki(tmp_path / "pki")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.socket = pki.server_context(["127.0.0.1"]).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def prepared(*answers: tuple[int, dict[str, str], Any]) -> tuple[Hub, list[str]]:
        server.answers = list(answers)  # type: ignore[attr-defined]
        notices: list[str] = []
        text = f"HostName=127.0.0.1:{server.server_port};SharedAccessKeyName=n;SharedAccessKey={KEY}"
        return Hub(parse_hub(text), Path(pki.ca_file), notices.append), notices

    yield prepared
    server.shutdown()
    server.server_close()


TWIN = {"deviceId": "edge01", "capabilities": {"iotEdge": True}, "properties": {"desired": {"$version": 3}}}
THROTTLED = (429, {"Retry-After": "0"}, {"Message": "ErrorCode:ThrottlingException"})


def test_a_throttled_request_is_made_again_and_said_to_be(answering: Prepared) -> None:
    hub, notices = answering(THROTTLED, (503, {"Retry-After": "0"}, {}), (200, {}, TWIN))
    twin = hub.twin("edge01")
    assert twin is not None
    assert (twin.edge_device, twin.desired_version) == (True, 3)
    assert [notice.split(";")[0] for notice in notices] == [
        "the hub is throttling",
        "the hub is unavailable for the moment",
    ]


@pytest.mark.parametrize(
    ("status", "answers"),
    [
        pytest.param(200, True, id="it answers"),
        pytest.param(404, False, id="it is not connected"),
        pytest.param(504, False, id="it is connected and does not answer"),
    ],
)
def test_whether_a_device_answers(answering: Prepared, status: int, answers: bool) -> None:
    hub, _ = answering((status, {}, {"status": 200, "payload": None}))
    assert hub.answers("edge01") is answers


def test_who_may_not_ask_a_device_is_told(answering: Prepared) -> None:
    hub, _ = answering((403, {}, {"Message": "no right"}))
    with pytest.raises(EdgeclaveError) as refused:
        hub.answers("edge01")
    assert (refused.value.code, refused.value.where) == ("hub-forbidden", "edge01/$edgeAgent")


def test_throttling_without_end_is_an_error(answering: Prepared) -> None:
    hub, notices = answering(*[THROTTLED] * 6)
    with pytest.raises(EdgeclaveError) as refused:
        hub.twin("edge01")
    assert (refused.value.code, len(notices)) == ("hub-throttling", 5)


@pytest.mark.parametrize(
    ("status", "ahead_minutes", "code", "advice"),
    [
        pytest.param(401, 0, "hub-unauthorized", "check the key", id="refused, clocks agree"),
        pytest.param(401, 90, "hub-unauthorized", "clock is 5", id="refused, this clock is behind"),
        pytest.param(403, 0, "hub-forbidden", "registry write", id="forbidden"),
        pytest.param(413, 0, "too-large", "32 KB", id="too large"),
        pytest.param(500, 0, "refused-by-hub", "", id="the hub's own failure"),
    ],
)
def test_what_the_hub_says_is_said_with_advice(
    answering: Prepared, status: int, ahead_minutes: int, code: str, advice: str
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=ahead_minutes), usegmt=True)
    hub, _ = answering((status, {"Date": date}, {"Message": "why\r\nTracking ID:abc"}))
    with pytest.raises(EdgeclaveError) as refused:
        hub.twin("edge01")
    assert (refused.value.code, refused.value.where) == (code, "edge01")
    assert refused.value.what == f"the hub refused it with {status}: why"
    assert advice in refused.value.advice


def test_an_answer_that_is_no_twin(answering: Prepared) -> None:
    hub, _ = answering((200, {}, ["not", "a", "twin"]))
    with pytest.raises(EdgeclaveError) as refused:
        hub.twin("edge01")
    assert refused.value.code == "not-a-hub"
