"""Debian's docker-registry with each way to log in, and a stand-in for Azure Container Registry in front of one."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from edgeclave.registry import (
    Credentials,
    Reference,
    RegistryAccess,
    RegistryError,
    RegistryLimits,
    pull_package,
    push_package,
)
from edgeclave.registry.tokens import TOKEN_USER
from edgeclave.ta.package import encode_package, read_package
from tests.fixtures.certificates import Authority
from tests.fixtures.docker_registry import PASSWORD, SERVICE, USER, DockerRegistry, TokenServer, with_password

WASM = b"\0asm" + bytes(range(256)) * 5000
DATA, DIGEST = encode_package(WASM, b"signature", {"org.opencontainers.image.title": "small"})
LIMITS = RegistryLimits(chunk_bytes=500_000, first_wait_seconds=0.01)
LOGIN = Credentials(USER, PASSWORD)
OPEN = RegistryAccess(limits=LIMITS)


def access(credentials: Credentials | None, authority: Path | None = None) -> RegistryAccess:
    return RegistryAccess(credentials, authority, limits=LIMITS)


async def there_and_back(host: str, using: RegistryAccess, folder: Path) -> None:
    pushed = await push_package(read_package(DATA), Reference.parse(f"{host}/plant/small:1"), using)
    assert (pushed.sent, pushed.present) == (len(WASM) + len(b"signature") + 2, 0)
    for reference in (pushed.reference, dataclasses.replace(pushed.reference, digest=None)):
        assert await pull_package(reference, folder / "small.ta", folder / "partial", using) == DIGEST
        assert (folder / "small.ta").read_bytes() == DATA


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def authority_file(tmp_path: Path, authority: Authority) -> Path:
    path = tmp_path / "authority.pem"
    path.write_bytes(authority.root.public_bytes(Encoding.PEM))
    return path


@pytest.fixture
async def tokens(tmp_path: Path, authority: Authority) -> AsyncIterator[TokenServer]:
    async with TokenServer(tmp_path / "tokens", authority).running() as server:
        yield server


@pytest.fixture
async def azure(tmp_path: Path, authority: Authority) -> AsyncIterator[TokenServer]:
    async with TokenServer(tmp_path / "azure", authority, azure=True).running() as server:
        yield server


async def test_without_a_login(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "registry").running() as registry:
        await there_and_back(registry.host, OPEN, tmp_path)


async def test_a_blob_altered_on_the_registrys_disk(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "registry").running() as registry:
        pushed = await push_package(read_package(DATA), Reference.parse(f"{registry.host}/a:1"), OPEN)
        stored = registry.stored(read_package(DATA).wasm_digest.hex())
        stored.write_bytes(WASM[:-1] + b"x")
        with pytest.raises(RegistryError) as refused:
            await pull_package(pushed.reference, tmp_path / "small.ta", tmp_path / "partial", OPEN)
    assert refused.value.code == "registry-wrong-digest"
    assert not (tmp_path / "small.ta").exists()


async def test_tls_of_a_private_authority_and_basic(tmp_path: Path, authority: Authority, authority_file: Path) -> None:
    with with_password(tmp_path / "registry", authority).running() as registry:
        await there_and_back(registry.host, access(LOGIN, authority_file), tmp_path)
        reference = Reference.parse(f"{registry.host}/plant/small:1")
        name = dataclasses.replace(reference, host=f"127.0.0.1:{registry.port}")
        for what, using, code in (
            (reference, access(None, authority_file), "registry-login"),
            (reference, access(Credentials(USER, "wrong"), authority_file), "registry-login"),
            (reference, access(Credentials(USER, PASSWORD, is_token=True), authority_file), "registry-login"),
            (name, access(LOGIN, authority_file), "registry-untrusted"),
            (reference, access(LOGIN), "registry-bad-answer"),  # plain HTTP to its TLS port
            (
                dataclasses.replace(reference, repository="plant/other"),
                access(LOGIN, authority_file),
                "registry-not-found",
            ),
        ):
            with pytest.raises(RegistryError) as refused:
                await pull_package(what, tmp_path / "other.ta", tmp_path / "partial", using)
            assert refused.value.code == code
            assert PASSWORD not in str(refused.value)


async def test_a_certificate_of_somebody_else(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other.pem"
    other.write_bytes(Authority(tmp_path / "other").root.public_bytes(Encoding.PEM))
    registry = with_password(tmp_path / "registry", authority)
    reference = Reference.parse(f"{registry.host}/plant/small:1")
    with registry.running(), pytest.raises(RegistryError, match="--ca") as refused:
        await pull_package(reference, tmp_path / "small.ta", tmp_path / "partial", access(LOGIN, other))
    assert refused.value.code == "registry-untrusted"


@pytest.mark.parametrize("content", [b"no certificate", None])
async def test_an_authority_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RegistryError) as refused:
        await pull_package(Reference.parse("localhost:1/a"), tmp_path / "a", tmp_path / "p", access(None, path))
    assert refused.value.code == "bad-authority-file"


async def test_tokens_are_asked_for_once_for_each_scope(tmp_path: Path, tokens: TokenServer) -> None:
    await push_package(read_package(DATA), Reference.parse(f"{tokens.host}/plant/small:1"), access(LOGIN))
    scopes = [fields["scope"].rpartition(":")[2].split(",") for _, _, fields in tokens.asked]
    assert [sorted(actions) for actions in scopes] == [["pull"], ["pull", "push"]]  # to look, then to upload
    tokens.asked.clear()
    reference = Reference.parse(f"{tokens.host}/plant/small:1")
    await pull_package(reference, tmp_path / "small.ta", tmp_path / "partial", access(LOGIN))
    assert tokens.asked == [("GET", "/token", {"scope": "repository:plant/small:pull", "service": SERVICE})]
    assert (tmp_path / "small.ta").read_bytes() == DATA


async def test_a_token_that_runs_out_is_renewed(tmp_path: Path, authority: Authority) -> None:
    async with TokenServer(tmp_path / "tokens", authority, life_seconds=1).running() as server:
        await there_and_back(server.host, access(LOGIN), tmp_path)


@pytest.mark.parametrize("credentials", [None, Credentials(USER, "wrong"), Credentials("nobody", PASSWORD)])
async def test_no_token_without_the_right_login(
    tmp_path: Path, tokens: TokenServer, credentials: Credentials | None
) -> None:
    with pytest.raises(RegistryError, match="docker login") as refused:
        await push_package(read_package(DATA), Reference.parse(f"{tokens.host}/a:1"), access(credentials))
    assert refused.value.code == "registry-login"
    assert len(tokens.asked) == 1


@pytest.mark.parametrize(
    ("login", "requests"),
    [
        pytest.param("principal", {("GET", "/oauth2/token")}, id="service principal, scoped token or admin: Basic"),
        pytest.param("refresh", {("POST", "/oauth2/token")}, id="az acr login --expose-token, as a user's password"),
        pytest.param("identity", {("POST", "/oauth2/token")}, id="az acr login, as config.json has it"),
        pytest.param("entra", {("POST", "/oauth2/exchange"), ("POST", "/oauth2/token")}, id="a token of Entra ID"),
    ],
)
async def test_azure_container_registry(
    tmp_path: Path, azure: TokenServer, login: str, requests: set[tuple[str, str]]
) -> None:
    credentials = {
        "principal": LOGIN,
        "refresh": Credentials(TOKEN_USER, azure.refresh_token()),
        "identity": Credentials(TOKEN_USER, azure.refresh_token(), is_token=True),
        "entra": Credentials(TOKEN_USER, azure.entra_token()),
    }[login]
    await there_and_back(azure.host, access(credentials), tmp_path)
    assert {(method, path) for method, path, _ in azure.asked} == requests
    exchanges = [fields for _, path, fields in azure.asked if path == "/oauth2/exchange"]
    assert len(exchanges) <= 3, "once for each connection"


@pytest.mark.parametrize("secret", ["entra", "refresh"])
async def test_an_azure_token_that_is_refused(tmp_path: Path, azure: TokenServer, secret: str) -> None:
    token = azure.entra_token() if secret == "entra" else azure.refresh_token()
    credentials = Credentials(TOKEN_USER, token[:-3] + "abc")
    with pytest.raises(RegistryError) as refused:
        await push_package(read_package(DATA), Reference.parse(f"{azure.host}/a:1"), access(credentials))
    assert refused.value.code == "registry-login"
    assert token[:-3] not in str(refused.value)


async def test_a_token_of_entra_id_goes_to_the_registrys_own_host_only(tmp_path: Path, tokens: TokenServer) -> None:
    credentials = Credentials(TOKEN_USER, tokens.entra_token())
    with pytest.raises(RegistryError, match="another host"):
        await push_package(read_package(DATA), Reference.parse(f"{tokens.host}/a:1"), access(credentials))
    assert tokens.asked == []
