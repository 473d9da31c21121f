"""The guest SDK as a developer's own unit tests use it: plain Python."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

MANIFEST = """
services = ["emit", "storage", "counter", "seal", "random", "host-time"]
[methods.count]
[methods.rough]
[methods.raw]
[methods.other]
[methods.ask]
[outputs.out]
recipient_authority = "reader-authority"
"""


@pytest.fixture
def sdk(guest_sdk: None) -> Any:
    return importlib.import_module("edgeclave_ta")


@pytest.fixture
def testing(guest_sdk: None) -> Any:
    return importlib.import_module("edgeclave_ta.testing")


@pytest.fixture
def manifest_file(tmp_path: Path) -> Path:
    path = tmp_path / "ta.toml"
    path.write_text(MANIFEST)
    return path


def test_a_method_gets_json_and_returns_json(sdk: Any, testing: Any) -> None:
    app = sdk.TrustedApp()

    def double(payload: Any) -> Any:
        return {"twice": payload["value"] * 2, "word": "é"}

    def raw(payload: str) -> str:
        return payload

    assert app.method(double) is double
    assert app.method("another-name")(len) is len
    assert app.raw_method(raw) is raw
    tee = testing.Harness(app)
    assert app.methods == ("another-name", "double", "raw")
    assert tee.invoke("double", {"value": 2}) == {"twice": 4, "word": "é"}
    assert tee.invoke_text("another-name", " [1,  null] ") == "2"
    assert tee.invoke_text("raw", " [1] ") == " [1] "


def test_two_methods_of_one_name(sdk: Any) -> None:
    app = sdk.TrustedApp()
    app.method("one")(print)
    with pytest.raises(ValueError, match="two methods named one"):
        app.method("one")(print)


def raising(error: BaseException) -> Any:
    def method(payload: Any) -> Any:
        raise error

    return method


@pytest.mark.parametrize(
    ("returned", "status"),
    [
        pytest.param(lambda sdk: object(), 500, id="an object"),
        pytest.param(lambda sdk: float("nan"), 500, id="not a number"),
        pytest.param(lambda sdk: b"bytes", 500, id="bytes"),
        pytest.param(lambda sdk: "\ud800", 500, id="text that is not Unicode"),
        pytest.param(lambda sdk: dict[str, int]()["missing"], 500, id="an exception"),
        pytest.param(lambda sdk: exit(), 500, id="an exit"),
        pytest.param(lambda sdk: raising(GeneratorExit())(None), 500, id="what is no Exception"),
        pytest.param(lambda sdk: raising(MemoryError())(None), 500, id="out of memory"),
        pytest.param(lambda sdk: raising(sdk.Failure(409, "busy"))(None), 409, id="its own failure"),
        pytest.param(lambda sdk: sdk.tee.put("a", 1), 500, id="a number into storage"),
        pytest.param(lambda sdk: sdk.tee.put("\ud800", "a"), 500, id="a key that is not Unicode"),
        pytest.param(lambda sdk: sdk.tee.random(-1), 500, id="less than no random bytes"),
        pytest.param(lambda sdk: sdk.tee.seal("a", policy="any"), 500, id="unknown seal policy"),
        pytest.param(lambda sdk: sdk.tee.log(256, "a"), 500, id="unknown log level"),
    ],
)
def test_what_goes_wrong_becomes_a_failure(sdk: Any, testing: Any, returned: Any, status: int) -> None:
    app = sdk.TrustedApp()
    app.method("rough")(lambda payload: returned(sdk))
    tee = testing.Harness(app)
    with pytest.raises(sdk.Failure) as failed:
        tee.invoke("rough", {"secret": "do not repeat"})
    assert failed.value.status == status
    assert "secret" not in failed.value.message
    assert bool(tee.logs) == (status == 500)
    assert not any("_app.py" in message for _, message in tee.logs)


@pytest.mark.parametrize("payload", ["", "{", "[" * 100_000, "nope"], ids=["empty", "cut off", "deep", "a word"])
def test_a_payload_that_is_not_json(sdk: Any, testing: Any, payload: str) -> None:
    app = sdk.TrustedApp()
    app.method("echo")(lambda payload: payload)
    with pytest.raises(sdk.Failure, match="400"):
        testing.Harness(app).invoke_text("echo", payload)


def test_failures_have_a_status_of_16_bits_and_a_message_that_can_be_sent(sdk: Any) -> None:
    for status in (-1, 200, 65536):
        with pytest.raises(ValueError, match="65535"):
            sdk.Failure(status, "no")
    assert sdk.Failure(400, "\ud800").message == "\\ud800"


def test_a_raw_method_must_return_text(sdk: Any, testing: Any) -> None:
    app = sdk.TrustedApp()
    app.raw_method(lambda raw: 5)
    with pytest.raises(sdk.Failure, match="TypeError"):
        testing.Harness(app).invoke("<lambda>", 1)


def test_a_call_that_fails_commits_nothing(sdk: Any, testing: Any) -> None:
    app = sdk.TrustedApp()

    def count(payload: Any) -> Any:
        value = sdk.tee.increment("calls")
        sdk.tee.put("last", str(value))
        sequence = sdk.tee.emit("out", {"value": value})
        if payload == "fail":
            raise sdk.Failure(409, "no")
        return [value, sequence, sdk.tee.get("last"), sdk.tee.get("none")]

    app.method(count)
    tee = testing.Harness(app)
    assert tee.invoke("count", 0) == [1, 1, "1", None]
    with pytest.raises(sdk.Failure):
        tee.invoke("count", "fail")
    assert (tee.storage, tee.counters) == ({"last": "1"}, {"calls": 1})
    assert tee.emitted == [testing.Emitted("out", 1, {"value": 1})]
    assert tee.invoke("count", 0) == [2, 2, "2", None]


def test_what_the_manifest_does_not_declare_is_refused(sdk: Any, testing: Any, manifest_file: Path) -> None:
    app = sdk.TrustedApp()

    def ask(payload: Any) -> Any:
        try:
            return getattr(sdk.tee, payload[0])(*payload[1:])
        except sdk.tee.TeeError as error:
            return str(error)

    app.method(ask)
    app.method("undeclared")(print)
    tee = testing.Harness(app, manifest=manifest_file)
    assert tee.invoke("ask", ["emit", "elsewhere", {}]) == "unknown output"
    assert tee.invoke("ask", ["emit", "out", {}]) == 1
    manifest_file.write_text("[methods.ask]")
    tee = testing.Harness(app, manifest=manifest_file)
    assert tee.invoke("ask", ["put", "a", "b"]) == "service storage is not granted"
    with pytest.raises(sdk.Failure, match="404"):
        tee.invoke("undeclared", None)


def test_services(sdk: Any, testing: Any) -> None:
    app, tee = sdk.TrustedApp(), sdk.tee

    def ask(payload: Any) -> Any:
        sealed = tee.seal("secret", context="here", policy="product")
        refusals = []
        for text, context in ((sealed, "there"), ("nonsense", "here")):
            with pytest.raises(tee.TeeError) as refused:
                tee.unseal(text, context=context)
            refusals.append(str(refused.value))
        unsealed = tee.unseal(sealed, context="here")
        tee.log(tee.INFO, "\ud800")
        tee.delete("nothing")
        return [
            unsealed.plaintext,
            unsealed.sealed_by.policy,
            refusals,
            len(tee.random(33)),
            type(tee.evidence(b"12345678")).__name__,
            tee.storage_protection(),
            tee.caller().name,
            tee.emulated(),
            tee.host_time(),
        ]

    app.method(ask)
    harness = testing.Harness(app, caller=tee.Caller("none", "device/module"), host_time=5)
    assert harness.invoke("ask", None) == [
        "secret",
        "product",
        ["it was sealed with another context", "this is not sealed data"],
        33,
        "bytes",
        "consistent",
        "device/module",
        True,
        5,
    ]
    assert harness.logs == [(tee.INFO, "\\ud800")]


@pytest.mark.parametrize(
    ("required", "offered", "level"),
    [
        pytest.param(None, None, "consistent", id="by default"),
        pytest.param(None, "rollback-protected", "rollback-protected", id="a platform with a counter"),
        pytest.param("rollback-protected", None, "rollback-protected", id="what the manifest requires"),
    ],
)
def test_the_level_of_storage(
    testing: Any, sdk: Any, tmp_path: Path, required: str | None, offered: str | None, level: str
) -> None:
    manifest = tmp_path / "ta.toml"
    requirement = f'storage_protection = "{required}"' if required else ""
    manifest.write_text(f"""{requirement}
product_id = 7
security_version = 3
services = ["seal"]
[methods.ask]
""")
    app, tee = sdk.TrustedApp(), sdk.tee

    def ask(_: Any) -> list[Any]:
        sealed_by = tee.unseal(tee.seal("secret", policy="product")).sealed_by
        return [tee.storage_protection(), sealed_by.product_id, sealed_by.security_version]

    app.method(ask)
    assert testing.Harness(app, manifest=manifest, storage_protection=offered).invoke("ask", None) == [level, 7, 3]


def test_storage_below_what_the_manifest_requires_is_refused_as_by_a_platform(
    testing: Any, sdk: Any, tmp_path: Path
) -> None:
    (tmp_path / "ta.toml").write_text('storage_protection = "rollback-protected"')
    with pytest.raises(ValueError, match="not started"):
        testing.Harness(sdk.TrustedApp(), manifest=tmp_path / "ta.toml", storage_protection="consistent")


def test_services_outside_a_call(sdk: Any) -> None:
    with pytest.raises(sdk.tee.TeeError, match=r"edgeclave_ta\.testing"):
        sdk.tee.get("a")


def test_the_probe_runs_as_plain_python(testing: Any, sdk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[2] / "fixtures" / "trusted_apps" / "probe"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "app", raising=False)
    app = importlib.import_module("app").app
    monkeypatch.delitem(sys.modules, "app")
    tee = testing.Harness(app, manifest=folder / "ta.toml")
    assert tee.invoke("emit", {"count": 3}) == {"sequences": [1, 2, 3]}
    assert tee.invoke("emit_undeclared", 1) == {"error": "unknown output"}
    with pytest.raises(sdk.Failure, match="409"):
        tee.invoke("write_then_fail", {"key": "a"})
    assert tee.storage == {}
    with pytest.raises(json.JSONDecodeError):
        tee.invoke("not_json", None)
