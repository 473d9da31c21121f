"""`edgeclave verifier serve` as processes: its API, its limits, replicas, rotation, its end."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from edgeclave.cli.main import run
from edgeclave.cloud.verifier_service.keyring import load_keyring, new_key, now_utc
from edgeclave.cloud.verifier_service.nonces import NONCE_BYTES, Nonces
from edgeclave.cloud.verifier_service.openapi import document
from edgeclave.evidence.ear import PLATFORM_SUBMODULE, TYP, read_ear
from edgeclave.evidence.tokens import PinnedIssuer
from tests.fixtures.benches import IntelBench
from tests.fixtures.evidence_bench import NONCE, NOW, Instance
from tests.fixtures.verifier_service import serving, stand_in_files

GENEROUS = ("--requests-per-second", "1000", "--burst", "1000", "--at", str(NOW))
ISSUER = "https://verifier.example"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def ask(url, body=None, *, method="POST", content_type="application/json", headers=()):
    """Status, JSON or text, headers."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers))
    if content_type:
        request.add_header("Content-Type", content_type)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status, text, received = answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        status, text, received = error.code, error.read(), error.headers
    try:
        return status, json.loads(text), received
    except ValueError:
        return status, text.decode(), received


def refused(answer):
    status, body, _ = answer
    return status, body["error"]["code"]


@pytest.fixture(scope="module")
def bench():
    return IntelBench("sgx", 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bench):
    folder = tmp_path_factory.mktemp("verifier")
    stand_in_files(folder, bench)
    new_key(folder / "keys", "one", now_utc())
    return folder


@pytest.fixture(scope="module")
def service(folder):
    with serving(folder, *GENEROUS, "--issuer", ISSUER) as (url, _):
        yield url


def pinned(folder):
    return PinnedIssuer.from_jwks(ISSUER, json.dumps(load_keyring(folder / "keys", ISSUER).jwks()).encode())


def nonce_of(url):
    status, body, _ = ask(f"{url}/v1/nonces")
    assert (status, body["expiresInSeconds"]) == (200, 300)
    return unb64(body["nonce"])


class TestAppraisal:
    def test_evidence_for_a_nonce_of_ours(self, service, folder, bench):
        nonce = nonce_of(service)
        instance = Instance(bench)
        evidence = instance.evidence(eat=instance.eat(nonce=nonce))
        status, body, _ = ask(f"{service}/v1/appraisals", {"evidence": b64(evidence), "nonce": b64(nonce)})
        assert status == 200
        claims = pinned(folder).read(body["token"], typ=TYP, now=int(time.time()))
        assert (claims["eat_nonce"], claims["edgeclave.appraised-as-of"]) == (b64(nonce), NOW)
        about = read_ear(body["token"], pinned(folder), now=int(time.time()))
        assert about["ear.status"] == "contraindicated"
        assert (about["edgeclave.test"], about["edgeclave.freshness"]) == (True, "nonce")

    def test_a_raw_quote_for_a_nonce_of_ours(self, service, folder, bench):
        nonce = nonce_of(service)
        quote = bench.quote(nonce.ljust(64, b"\0"))
        status, body, _ = ask(f"{service}/v1/appraisals", {"quote": b64(quote), "nonce": b64(nonce)})
        assert status == 200
        about = read_ear(body["token"], pinned(folder), now=int(time.time()), submodule=PLATFORM_SUBMODULE)
        assert about["edgeclave.runtime"]["mrenclave"] == (b"r" * 32).hex()

    @pytest.mark.parametrize(
        ("nonce", "code"),
        [
            pytest.param(lambda _: None, "freshness-unknown", id="none"),
            pytest.param(lambda _: NONCE, "unknown-nonce", id="made up by the client"),
            pytest.param(lambda _: bytes(NONCE_BYTES), "unknown-nonce", id="of the right length"),
            pytest.param(lambda _: Nonces(os.urandom(32)).issue(NOW), "unknown-nonce", id="of another verifier"),
            pytest.param(lambda ours: ours.issue(NOW - 301), "evidence-too-old", id="expired"),
            pytest.param(lambda ours: ours.issue(NOW + 1), "evidence-too-old", id="of the future"),
        ],
    )
    def test_nonces(self, service, folder, bench, nonce, code):
        value = nonce(Nonces((folder / "keys" / "nonce.secret").read_bytes()))
        instance = Instance(bench)
        evidence = instance.evidence(eat=instance.eat(nonce=value or NONCE))
        body = {"evidence": b64(evidence), **({} if value is None else {"nonce": b64(value)})}
        assert refused(ask(f"{service}/v1/appraisals", body)) == (422, code)

    def test_evidence_made_for_another_nonce(self, service, bench):
        body = {"evidence": b64(Instance(bench).evidence()), "nonce": b64(nonce_of(service))}
        assert refused(ask(f"{service}/v1/appraisals", body)) == (422, "wrong-nonce")
        body = {"quote": b64(bench.quote(NONCE.ljust(64, b"\0"))), "nonce": b64(nonce_of(service))}
        assert refused(ask(f"{service}/v1/appraisals", body)) == (422, "wrong-nonce")

    def test_a_foreign_runtime(self, service, bench):
        nonce = nonce_of(service)
        quote = bench.quote(nonce.ljust(64, b"\0"), foreign_runtime=True)
        body = {"quote": b64(quote), "nonce": b64(nonce)}
        assert refused(ask(f"{service}/v1/appraisals", body)) == (422, "wrong-runtime")


class TestRequests:
    @pytest.mark.parametrize(
        ("body", "content_type", "answer"),
        [
            pytest.param(b"{}", "application/json", (400, "malformed-body"), id="neither evidence nor quote"),
            pytest.param(b'{"evidence":"","quote":""}', "application/json", (400, "malformed-body"), id="both"),
            pytest.param(b"", "application/json", (400, "malformed-body"), id="nothing"),
            pytest.param(b"[" * 20_000, "application/json", (400, "malformed-body"), id="deep nesting"),
            pytest.param(b'{"quote":"\xff"}', "application/json", (400, "malformed-body"), id="no UTF-8"),
            pytest.param(b'{"quote":1}', "application/json", (400, "malformed-body"), id="a number"),
            pytest.param(b'{"quote":"a/b+"}', "application/json", (400, "malformed-body"), id="plain base64"),
            pytest.param(b'{"quote":"a"}', "application/json", (400, "malformed-body"), id="a lone letter"),
            pytest.param(b'{"quote":"AA","more":1}', "application/json", (400, "malformed-body"), id="a name too much"),
            pytest.param(b'{"quote":"AA"}', "application/json", (422, "malformed-quote"), id="no quote"),
            pytest.param(b'{"evidence":"AA"}', "application/json", (422, "malformed-evidence"), id="no evidence"),
            pytest.param(b'{"quote":"AA"}', "text/plain", (415, "wrong-content-type"), id="text"),
            pytest.param(b'{"quote":"AA"}', "", (415, "wrong-content-type"), id="no type"),
            pytest.param(b" " * (200 << 10), "application/json", (413, "body-too-large"), id="too large"),
            pytest.param(
                b'{"quote":"' + b"A" * (100 << 10) + b'"}', "application/json", (413, "body-too-large"), id="long quote"
            ),
        ],
    )
    def test_malformed(self, service, body, content_type, answer):
        assert refused(ask(f"{service}/v1/appraisals", body, content_type=content_type or "x/y")) == answer

    @pytest.mark.parametrize("encoding", ["gzip", "deflate"])
    def test_a_body_that_is_not_encoded_as_it_says(self, service, encoding):
        answer = ask(f"{service}/v1/appraisals", b'{"quote":"AA"}', headers={"Content-Encoding": encoding})
        assert refused(answer) == (400, "malformed-body")

    def test_paths_and_methods(self, service):
        assert refused(ask(f"{service}/nothing")) == (404, "no-such-path")
        assert refused(ask(f"{service}/v1/appraisals", method="GET")) == (405, "method-not-allowed")

    def test_a_length_that_is_never_sent(self, service):
        host = urlsplit(service)
        with socket.create_connection((host.hostname, host.port), 5) as connection:
            connection.sendall(b"POST /v1/nonces HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
            assert b"200 OK" in connection.recv(4096)  # it needs no body, and does not wait for one

    def test_openapi_names_every_route(self, service):
        status, body, _ = ask(f"{service}/openapi.json", method="GET")
        assert status == 200
        assert body == json.loads(document())
        for path, operations in body["paths"].items():
            for method in operations:
                assert ask(f"{service}{path}", b"" if method == "post" else None, method=method.upper())[0] != 404

    def test_health_and_metrics(self, service):
        assert ask(f"{service}/health/live", method="GET")[0] == 200
        assert ask(f"{service}/health/ready", method="GET")[0] == 200
        ask(f"{service}/v1/appraisals", b"{}")
        _, text, _ = ask(f"{service}/metrics", method="GET")
        assert 'edgeclave_verifier_requests_total{operation="appraise",outcome="malformed-body"}' in text


def test_replicas_share_nonces_and_keys(folder, bench, service):
    with serving(folder, *GENEROUS, "--issuer", ISSUER) as (other, _):
        nonce = nonce_of(service)
        instance = Instance(bench)
        body = {"evidence": b64(instance.evidence(eat=instance.eat(nonce=nonce))), "nonce": b64(nonce)}
        status, answer, _ = ask(f"{other}/v1/appraisals", body)
        assert status == 200
        assert read_ear(answer["token"], pinned(folder), now=int(time.time()))["edgeclave.freshness"] == "nonce"
        certificates = [ask(f"{url}/certs", method="GET")[1] for url in (service, other)]
        assert certificates[0] == certificates[1]


def test_rate_limit_per_client(folder):
    with serving(folder, "--requests-per-second", "0.01", "--burst", "3", "--forwarded") as (url, _):

        def asked(address):
            return ask(f"{url}/v1/nonces", headers={"X-Forwarded-For": f"6.6.6.6, {address}"})

        assert [asked("192.0.2.1")[0] for _ in range(4)] == [200, 200, 200, 429]
        status, body, headers = asked("192.0.2.1")
        assert (status, body["error"]["code"]) == (429, "too-many-requests")
        assert 1 <= int(headers["Retry-After"]) <= 101
        assert asked("192.0.2.2")[0] == 200
        assert [asked(f"2001:db8:1:1::{n}")[0] for n in range(4)] == [200, 200, 200, 429]
        assert ask(f"{url}/health/live", method="GET")[0] == 200


def test_sigterm_lets_a_balancer_notice_and_requests_end(folder):
    with serving(folder, "--drain-seconds", "4") as (url, process):
        host = urlsplit(url)
        connection = http.client.HTTPConnection(host.hostname, host.port, timeout=10)
        connection.putrequest("POST", "/v1/appraisals")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "2")
        connection.endheaders()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        while ask(f"{url}/health/ready", method="GET")[0] == 200:
            time.sleep(0.05)
        assert ask(f"{url}/health/ready", method="GET")[0] == 503
        connection.send(b"{}")
        assert connection.getresponse().status == 400
        assert process.wait(30) == 0
    logs = [json.loads(line) for log in folder.glob("verifier-*.log") for line in log.read_text().splitlines()]
    assert {"serving", "ending", "refused"} <= {line["event"] for line in logs}


class TestKeys:
    def test_the_next_key_is_published_before_it_signs(self, tmp_path):
        now = now_utc()
        new_key(tmp_path, "a", now - timedelta(days=1))
        new_key(tmp_path, "b", now + timedelta(hours=1))
        keyring = load_keyring(tmp_path, ISSUER)
        kids = [key["kid"] for key in keyring.jwks()["keys"]]
        assert len(kids) == 2
        assert keyring.signer(int(now.timestamp())).key_id == kids[0]
        assert keyring.signer(int(now.timestamp()) + 3600).key_id == kids[1]

    @pytest.mark.parametrize(
        ("spoil", "code"),
        [
            pytest.param(lambda keys: (keys / "a.signing.pem").chmod(0o640), "key-exposed", id="others may read it"),
            pytest.param(lambda keys: (keys / "nonce.secret").chmod(0o604), "key-exposed", id="the secret too"),
            pytest.param(lambda keys: (keys / "a.signing.pem").write_text("x"), "bad-verifier-key", id="no key"),
            pytest.param(lambda keys: (keys / "nonce.secret").write_text("x"), "bad-verifier-key", id="short secret"),
            pytest.param(lambda keys: (keys / "nonce.secret").unlink(), "bad-verifier-key", id="no secret"),
            pytest.param(lambda keys: (keys / "a.signing.pem").unlink(), "no-signing-key", id="none"),
        ],
    )
    def test_unusable(self, tmp_path, capsys, spoil, code):
        stand_in_files(tmp_path, IntelBench("sgx", 3))
        assert run(["verifier", "new-key", "a", "--keys", str(tmp_path / "keys")]) == 0
        spoil(tmp_path / "keys")
        arguments = ["--policy", str(tmp_path / "policy.toml"), "--keys", str(tmp_path / "keys")]
        assert run(["verifier", "serve", *arguments]) == 1
        assert f"[{code}]" in capsys.readouterr().err

    def test_files_are_for_their_owner_only(self, tmp_path, capsys):
        assert run(["verifier", "new-key", "a", "--keys", str(tmp_path / "keys")]) == 0
        assert run(["verifier", "new-key", "a", "--keys", str(tmp_path / "keys")]) == 1
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
        capsys.readouterr()
        assert run(["verifier", "jwks", "--keys", str(tmp_path / "keys")]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert {"d", "p", "q"}.isdisjoint(printed["keys"][0])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--host", "0.0.0.0"], "needs-tls"),
        (["--tls-certificate", "x.pem"], "bad-tls"),
        (["--tls-certificate", "x.pem", "--tls-key", "x.pem"], "bad-tls"),
        (["--issuer", "verifier"], "bad-issuer"),
        (["--at", "soon"], "bad-time"),
    ],
)
def test_wrong_options(folder, monkeypatch, capsys, options, code):
    monkeypatch.chdir(folder)
    assert run(["verifier", "serve", "--policy", "policy.toml", "--keys", "keys", "--port", "0", *options]) == 1
    assert f"[{code}]" in capsys.readouterr().err


def test_a_port_in_use(folder, monkeypatch, capsys, service):
    monkeypatch.chdir(folder)
    port = str(urlsplit(service).port)
    assert run(["verifier", "serve", "--policy", "policy.toml", "--keys", "keys", "--port", port]) == 1
    assert "[cannot-listen]" in capsys.readouterr().err
