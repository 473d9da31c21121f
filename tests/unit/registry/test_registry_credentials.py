from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave.registry import Credentials, RegistryError, read_credentials


def auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def write(folder: Path, content: Any, mode: int = 0o600) -> Path:
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return folder


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str = "test") -> None:
    """A credential helper program on the path."""
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("auths", "host", "expected"),
    [
        pytest.param({"r.example": {"auth": auth("u", "p:w")}}, "r.example", Credentials("u", "p:w"), id="auth"),
        pytest.param({"r.example:5000": {"auth": auth("u", "p")}}, "r.example", None, id="another port"),
        pytest.param(
            {"R.example": {"username": "u", "password": "p"}}, "r.example", Credentials("u", "p"), id="fields"
        ),
        pytest.param({"https://r.example/v1/": {"auth": auth("u", "p")}}, "r.example", Credentials("u", "p"), id="url"),
        pytest.param(
            {"https://index.docker.io/v1/": {"auth": auth("u", "p")}}, "docker.io", Credentials("u", "p"), id="hub"
        ),
        pytest.param(
            {"r.example": {"auth": auth("0-0", ""), "identitytoken": "t"}},
            "r.example",
            Credentials("0-0", "t", is_token=True),
            id="identity token, as az acr login leaves it",
        ),
        pytest.param({"r.example": {}}, "r.example", None, id="an empty entry"),
        pytest.param({}, "r.example", None, id="no entry"),
    ],
)
def test_found(tmp_path: Path, auths: dict[str, Any], host: str, expected: Credentials | None) -> None:
    assert read_credentials(host, write(tmp_path, {"auths": auths, "HttpHeaders": {"x": "y"}})) == expected


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert read_credentials("r.example", tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param("{", "bad-credentials", id="no JSON"),
        pytest.param('{"auths": 1}', "bad-credentials", id="another type"),
        pytest.param("[" * 100_000, "bad-credentials", id="deep"),
        pytest.param(" " * (2 << 20), "bad-credentials", id="large"),
        pytest.param({"auths": {"r.example": {"auth": "%%%"}}}, "bad-credentials", id="no base64"),
        pytest.param({"auths": {"r.example": {"auth": "/w=="}}}, "bad-credentials", id="no text"),
        pytest.param(
            {"auths": {"r.example": {"auth": auth("u\r\nX: y", "p")}}}, "bad-credentials", id="a header in it"
        ),
        pytest.param({"credsStore": "../../bin/sh"}, "bad-credentials", id="a path as helper"),
        pytest.param({"credsStore": "not-installed"}, "credential-helper-failed", id="a helper that is not there"),
    ],
)
def test_refused(tmp_path: Path, content: Any, code: str) -> None:
    with pytest.raises(RegistryError) as refused:
        read_credentials("r.example", write(tmp_path, content))
    assert refused.value.code == code
    assert refused.value.advice
    assert str(tmp_path) in refused.value.where


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(RegistryError, match="mode 0600 or 0640") as refused:
        read_credentials("r.example", tmp_path)
    assert refused.value.code == "bad-credentials"


def test_credentials_that_everybody_can_read_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, {"auths": {"r.example": {"auth": auth("u", "p")}}}, mode=0o644)
    assert read_credentials("other.example", folder) is None
    with pytest.raises(RegistryError, match="chmod") as refused:
        read_credentials("r.example", folder)
    assert refused.value.code == "credentials-exposed"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(
            'read r; echo "{\\"Username\\":\\"$1\\",\\"Secret\\":\\"$r\\"}"',
            Credentials("get", "r.example"),
            id="protocol",
        ),
        pytest.param(
            'echo \'{"Username":"<token>","Secret":"t"}\'', Credentials("<token>", "t", is_token=True), id="token"
        ),
        pytest.param('echo "credentials not found in native keychain"; exit 1', None, id="it has none"),
    ],
)
@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: Credentials | None, key: str
) -> None:
    helper(tmp_path, monkeypatch, script)
    content = {key: "test" if key == "credsStore" else {"r.example": "test"}}
    assert read_credentials("r.example", write(tmp_path, content)) == expected


@pytest.mark.parametrize("script", ["exit 3", "echo no json", "echo '{\"Username\":1}'"])
def test_a_helper_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    helper(tmp_path, monkeypatch, script)
    with pytest.raises(RegistryError) as refused:
        read_credentials("r.example", write(tmp_path, {"credsStore": "test"}))
    assert refused.value.code == "credential-helper-failed"


def test_secrets_are_not_shown() -> None:
    assert "p4ss" not in repr(Credentials("u", "p4ss"))


@settings(max_examples=40)
@given(
    content=st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.dictionaries(
            st.sampled_from(["auths", "auth", "r.example", "credsStore", "credHelpers", "identitytoken"]), inner
        ),
    )
)
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    folder = write(tmp_path_factory.mktemp("docker"), content)
    with contextlib.suppress(RegistryError):
        read_credentials("r.example", folder)
