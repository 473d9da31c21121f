"""`ta.toml`: every field broken in its ways gives one error that names the field and says what to do."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeclave.develop.project import read_wasm
from edgeclave.errors import ConfigurationError, EdgeclaveError, PackageError
from edgeclave.keys import create_key
from edgeclave.ta.source import load_source, read_name

FIELDS = {
    "name": 'name = "meter"',
    "version": 'version = "1.0.0"',
    "product_id": "product_id = 5",
    "security_version": "security_version = 2",
    "accept_state_from_svn": "accept_state_from_svn = 1",
    "debug": "debug = false",
    "services": 'services = ["emit", "log"]',
    "beacon_authority": 'beacon_authority = "authority"',
    "storage_protection": 'storage_protection = "consistent"',
    "limits": "limits = {memory_mib = 64, deadline_ms = 1000, message_kib = 64}",
    "methods": "methods = {observe = {channel = 'any', input_schema = 'in.json', output_schema = 'in.json'}}",
    "outputs": 'outputs = {records = {recipient_authority = "authority"}}',
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    create_key(folder, "authority")
    (folder / "text.pub.pem").write_text("no key")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.json").write_text('{"type": "object"}')
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "large.json").write_text('{"description": "' + "x" * (33 << 10) + '"}')
    (tmp_path / "huge.json").touch()
    os.truncate(tmp_path / "huge.json", 1 << 40)
    return tmp_path


def written(folder: Path, **changes: str) -> Path:
    (folder / "ta.toml").write_text("\n".join({**FIELDS, **changes}.values()))
    return folder


def test_every_field_is_read(folder: Path, keys: Path) -> None:
    manifest = load_source(written(folder), keys)
    assert set(manifest.to_map()) == set(FIELDS)
    assert manifest.limits.memory_mib == 64
    assert manifest.methods["observe"].input_schema == '{"type":"object"}'


@pytest.mark.parametrize("field", ["name", "version", "product_id", "security_version", "methods"])
def test_what_must_be_there(folder: Path, keys: Path, field: str) -> None:
    with pytest.raises(PackageError) as refused:
        load_source(written(folder, **{field: ""}), keys)
    assert refused.value.where.endswith(f"ta.toml: {field}")
    assert refused.value.advice == f"add `{field}`"


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in ("name", "version", "product_id")])
def test_what_may_be_left_out(folder: Path, keys: Path, field: str) -> None:
    if field not in ("security_version", "methods"):
        load_source(written(folder, **{field: ""}), keys)


@pytest.mark.parametrize(
    ("field", "text", "path"),
    [
        pytest.param("name", 'name = "Meter"', "name", id="name in upper case"),
        pytest.param("name", 'name = ""', "name", id="name empty"),
        pytest.param("name", "name = 5", "name", id="name as a number"),
        pytest.param("version", 'version = ""', "version", id="version empty"),
        pytest.param("version", "version = 1.0", "version", id="version as a number"),
        pytest.param("version", 'version = "../1"', "version", id="version as a path"),
        pytest.param("product_id", "product_id = -1", "product_id", id="product_id below 0"),
        pytest.param("product_id", "product_id = 65536", "product_id", id="product_id over 16 bits"),
        pytest.param("product_id", "product_id = true", "product_id", id="product_id as a boolean"),
        pytest.param(
            "security_version", "security_version = 1e3", "security_version", id="security_version as a float"
        ),
        pytest.param(
            "security_version", "security_version = 70000", "security_version", id="security_version too high"
        ),
        pytest.param("accept_state_from_svn", "accept_state_from_svn = 3", "accept_state_from_svn", id="later state"),
        pytest.param(
            "accept_state_from_svn", "accept_state_from_svn = '1'", "accept_state_from_svn", id="state as text"
        ),
        pytest.param("debug", "debug = 1", "debug", id="debug as a number"),
        pytest.param("debug", 'debug = "no"', "debug", id="debug as text"),
        pytest.param("services", 'services = "emit"', "services", id="services as text"),
        pytest.param("services", 'services = ["network"]', "services[0]", id="an unknown service"),
        pytest.param("services", 'services = ["emit", 1]', "services[1]", id="a service as a number"),
        pytest.param("beacon_authority", 'beacon_authority = "nobody"', "beacon_authority", id="no such authority"),
        pytest.param("beacon_authority", "beacon_authority = 1", "beacon_authority", id="authority as a number"),
        pytest.param("storage_protection", 'storage_protection = "best"', "storage_protection", id="storage level"),
        pytest.param("limits", "limits = 64", "limits", id="limits as a number"),
        pytest.param("limits", "limits = {memory_mib = 15}", "limits.memory_mib", id="too little memory"),
        pytest.param("limits", "limits = {memory_mib = 1025}", "limits.memory_mib", id="too much memory"),
        pytest.param("limits", "limits = {deadline_ms = 0}", "limits.deadline_ms", id="no time"),
        pytest.param("limits", "limits = {deadline_ms = 60001}", "limits.deadline_ms", id="too much time"),
        pytest.param("limits", "limits = {message_kib = 0}", "limits.message_kib", id="no message"),
        pytest.param("limits", "limits = {message_kib = 1025}", "limits.message_kib", id="too large a message"),
        pytest.param("limits", "limits = {memory = 64}", "limits.memory", id="an unknown limit"),
        pytest.param("methods", "methods = {}", "methods", id="no method"),
        pytest.param("methods", "methods = []", "methods", id="methods as a list"),
        pytest.param("methods", "methods = {observe = 1}", "methods.observe", id="a method as a number"),
        pytest.param("methods", "methods = {'a b' = {}}", "methods", id="a method's name"),
        pytest.param("methods", "methods = {a = {channel = 'tls'}}", "methods.a.channel", id="an unknown channel"),
        pytest.param(
            "methods", "methods = {a = {timeout = 1}}", "methods.a.timeout", id="an unknown field of a method"
        ),
        pytest.param(
            "methods", "methods = {a = {input_schema = 'no.json'}}", "methods.a.input_schema", id="no such schema"
        ),
        pytest.param(
            "methods",
            "methods = {a = {output_schema = 'broken.json'}}",
            "methods.a.output_schema",
            id="a broken schema",
        ),
        pytest.param(
            "methods", "methods = {a = {input_schema = 'list.json'}}", "methods.a.input_schema", id="a list as schema"
        ),
        pytest.param(
            "methods", "methods = {a = {input_schema = 'large.json'}}", "methods.a.input_schema", id="a large schema"
        ),
        pytest.param(
            "methods", "methods = {a = {input_schema = 'huge.json'}}", "methods.a.input_schema", id="a schema of 1 TB"
        ),
        pytest.param("outputs", "outputs = {records = []}", "outputs.records", id="an output as a list"),
        pytest.param("outputs", "outputs = {records = {}}", "outputs.records.recipient_authority", id="no authority"),
        pytest.param(
            "outputs",
            "outputs = {records = {recipient_authority = 'text'}}",
            "outputs.records.recipient_authority",
            id="an authority that is no key",
        ),
        pytest.param(
            "outputs",
            "outputs = {records = {recipient_authority = '../authority'}}",
            "outputs.records.recipient_authority",
            id="an authority as a path",
        ),
        pytest.param("outputs", "outputs = {records = {readers = []}}", "outputs.records.readers", id="unknown field"),
        pytest.param("outputs", "outputs = {'a/b' = {}}", "outputs", id="an output's name"),
    ],
)
def test_a_broken_field_is_named(folder: Path, keys: Path, field: str, text: str, path: str) -> None:
    with pytest.raises(PackageError) as refused:
        load_source(written(folder, **{field: text}), keys)
    assert refused.value.code == "bad-manifest"
    assert refused.value.where == f"{folder / 'ta.toml'}: {path}"
    assert refused.value.advice


@pytest.mark.parametrize("field", FIELDS)
def test_a_misspelled_field_is_told_from_a_missing_one(folder: Path, keys: Path, field: str) -> None:
    misspelled = field[:-1] + "x"
    text = FIELDS[field].replace(field, misspelled, 1)
    with pytest.raises(PackageError) as refused:
        load_source(written(folder, **{field: text}), keys)
    assert refused.value.where.endswith(f"ta.toml: {misspelled}")
    assert refused.value.advice == f"did you mean {field}?"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"name = \xff", id="not UTF-8"),
        pytest.param(b'name = "a"\nname = "b"', id="a field twice"),
        pytest.param(b"a = " + b"[" * 5000, id="deep nesting"),
        pytest.param(b"#" * (257 << 10), id="too large"),
    ],
)
def test_what_is_no_toml(folder: Path, keys: Path, content: bytes) -> None:
    (folder / "ta.toml").write_bytes(content)
    for read in (lambda: load_source(folder, keys), lambda: read_name(folder)):
        with pytest.raises(PackageError) as refused:
            read()
        assert refused.value.code == "bad-manifest"
        assert refused.value.where == str(folder / "ta.toml")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"name = '''{text}'''".encode()))
def test_any_file_is_read_or_refused(folder: Path, keys: Path, content: bytes) -> None:
    (folder / "ta.toml").write_bytes(content)
    with contextlib.suppress(PackageError):
        load_source(folder, keys)


@pytest.mark.parametrize("name", ["ta.toml", "in.json"])
def test_a_pipe_in_the_place_of_a_file_does_not_keep_anyone_waiting(folder: Path, keys: Path, name: str) -> None:
    written(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(EdgeclaveError, match="it is not a file"):
        load_source(folder, keys)


def test_no_file_and_no_folder(tmp_path: Path, keys: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "ta.toml"):
        with pytest.raises(ConfigurationError) as refused:
            load_source(path, keys)
        assert refused.value.code == "no-manifest"


def test_code_that_is_too_large_is_refused_and_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.wasm"
    path.touch()
    os.truncate(path, 1 << 40)
    for large in (path, Path("/dev/zero")):
        with pytest.raises(EdgeclaveError) as refused:
            read_wasm(large)
        assert refused.value.code == "wasm-too-large"
