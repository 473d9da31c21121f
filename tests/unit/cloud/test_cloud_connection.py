from __future__ import annotations

from pathlib import Path

import pytest

from edgeclave.cloud.connection import EVENT_HUB_VARIABLE, connection_string, parse_event_hub, parse_hub
from edgeclave.errors import ConfigurationError

KEY = "c2VjcmV0IG9mIHRoZSBodWI="
GOOD = f"Endpoint=sb://127.9.1.1/;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY};EntityPath=hub"


def test_a_connection_string_names_host_and_hub_and_hides_its_key() -> None:
    connection = parse_event_hub(GOOD)
    assert (connection.host, connection.hub, connection.text) == ("127.9.1.1", "hub", GOOD)
    assert KEY not in repr(connection)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD + ";", id="a semicolon at the end"),
        pytest.param(GOOD.replace("Endpoint", "endpoint"), id="a name in small letters"),
        pytest.param(
            "Endpoint=sb://h/;EntityPath=hub;SharedAccessSignature=SharedAccessSignature sr=x&sig=y&se=1",
            id="a ready-made signature",
        ),
    ],
)
def test_forms_that_azure_shows_are_taken(text: str) -> None:
    assert parse_event_hub(text).hub == "hub"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        pytest.param(GOOD.replace(";EntityPath=hub", ""), "EntityPath", id="no hub"),
        pytest.param(GOOD.replace("Endpoint=sb://127.9.1.1/;", ""), "Endpoint", id="no endpoint"),
        pytest.param(
            GOOD.replace("sb://127.9.1.1/", "https://127.9.1.1/"), "Endpoint", id="endpoint of another scheme"
        ),
        pytest.param(GOOD.replace("sb://127.9.1.1/", "sb://"), "Endpoint", id="endpoint without a host"),
        pytest.param(GOOD.replace("sb://127.9.1.1/", "sb://[::1/"), "Endpoint", id="endpoint with half an address"),
        pytest.param(GOOD.replace(f"SharedAccessKey={KEY};", ""), "SharedAccessKey", id="no key"),
        pytest.param(GOOD.replace("SharedAccessKeyName=iothubowner;", ""), "SharedAccessKeyName", id="no key name"),
        pytest.param(GOOD + ";SharedAccessSignature=s", "SharedAccessSignature", id="key and signature"),
        pytest.param(GOOD + ";EntityPath=hub", "EntityPath", id="a field twice"),
        pytest.param(
            GOOD.replace("HostName", "x").replace("Endpoint=sb", "HostName=sb"), "part 1", id="a service string"
        ),
        pytest.param(f"{KEY};{GOOD}", "part 1", id="a value without a name"),
        pytest.param("", "part 1", id="empty"),
    ],
)
def test_an_error_names_the_field_and_never_the_key(text: str, field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_event_hub(text)
    assert caught.value.code == "bad-connection-string"
    assert field in caught.value.what
    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value)


def test_it_is_given_literally_by_file_or_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "connection"
    file.write_text(GOOD + "\n")
    monkeypatch.setenv(EVENT_HUB_VARIABLE, "from the environment")

    def given(value: str | None) -> str:
        return connection_string(value, variable=EVENT_HUB_VARIABLE, option="--eventhub")

    assert given(GOOD) == GOOD
    assert given(f"@{file}") == GOOD
    assert given(None) == "from the environment"
    monkeypatch.setenv(EVENT_HUB_VARIABLE, f"@{file}")
    assert given(None) == GOOD


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(None, "connection-string-unreadable", id="no such file"),
        pytest.param(b"\xff\xfe", "connection-string-unreadable", id="not text"),
        pytest.param(b"", "no-connection-string", id="empty"),
        pytest.param(b"x" * 10_000, "bad-connection-string", id="huge"),
    ],
)
def test_a_file_that_holds_none_is_explained(tmp_path: Path, content: bytes | None, code: str) -> None:
    file = tmp_path / "connection"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        connection_string(f"@{file}", variable=EVENT_HUB_VARIABLE, option="--eventhub")
    assert caught.value.code == code


def test_none_at_all_names_option_and_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EVENT_HUB_VARIABLE, raising=False)
    with pytest.raises(ConfigurationError, match="no connection string") as caught:
        connection_string(None, variable=EVENT_HUB_VARIABLE, option="--eventhub")
    assert "--eventhub @FILE" in caught.value.advice
    assert EVENT_HUB_VARIABLE in caught.value.advice


HUB = f"HostName=h.azure-devices.net;SharedAccessKeyName=deployer;SharedAccessKey={KEY}"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(HUB, id="as the portal shows it"),
        pytest.param(HUB + ";\n", id="a semicolon and a new line at the end"),
        pytest.param(HUB.replace("HostName", "hostname"), id="a name in small letters"),
    ],
)
def test_a_hub_connection_is_as_the_sdk_takes_it_and_hides_its_key(text: str) -> None:
    connection = parse_hub(text)
    assert (connection.host, connection.policy, connection.text) == ("h.azure-devices.net", "deployer", HUB)
    assert KEY not in repr(connection)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(HUB.replace("HostName=h.azure-devices.net;", ""), "HostName is missing", id="no host"),
        pytest.param(HUB.partition(";SharedAccessKey=")[0], "SharedAccessKey is missing", id="no key"),
        pytest.param(HUB.replace("SharedAccessKeyName=deployer;", ""), "KeyName is missing", id="no policy"),
        pytest.param(HUB[:-3], "not base64", id="a key that was cut"),
        pytest.param(HUB + ";DeviceId=edge01", "device's own", id="a device's connection string"),
        pytest.param(HUB + ";SharedAccessSignature=s", "needs the key", id="a ready-made signature"),
        pytest.param(GOOD, "part 1", id="an event hub's connection string"),
        pytest.param(HUB + ";" + HUB, "twice", id="twice"),
    ],
)
def test_a_hub_connection_error_never_shows_the_key(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_hub(text)
    assert caught.value.code == "bad-connection-string"
    assert words in caught.value.what
    assert KEY not in str(caught.value)
