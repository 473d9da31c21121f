"""Which lines of a module's log edgeAgent's methods give, and how."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.supervisor.log_requests import LogFilter, LogRequest, moment, pattern, selected, written
from edgeclave.simulator.supervisor.module_logs import LogLine, ModuleLogs

NOW = 1_700_000_000.0
LINES = [
    LogLine("<6> 2019-02-14 16:15:35.243 -08:00 [INF] started", NOW - 90_000),
    LogLine("<4> hot", NOW - 7200),
    LogLine("plain", NOW - 60),
    LogLine("<3>broken", NOW - 1),
]


def request(**fields: Any) -> LogRequest:
    return msgspec.convert({"schemaVersion": "1.0", "items": {"id": "all"}, **fields}, LogRequest)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        pytest.param({}, "0123", id="everything"),
        pytest.param({"tail": 2}, "23", id="tail"),
        pytest.param({"tail": 0}, "", id="a tail of nothing"),
        pytest.param({"since": "1d"}, "123", id="since a day ago"),
        pytest.param({"since": "1 day 2 hours"}, "0123", id="since a day and more ago"),
        pytest.param({"until": "90m"}, "01", id="until one hour and a half ago"),
        pytest.param({"since": "3h", "until": "30 s"}, "12", id="between"),
        pytest.param({"since": int(NOW) - 61}, "23", id="seconds since 1970"),
        pytest.param({"since": "2023-11-14T22:13:19Z"}, "3", id="a date"),
        pytest.param({"since": "3h", "tail": 1, "until": "30s"}, "2", id="tail counts last"),
        pytest.param({"loglevel": 3}, "3", id="errors"),
        pytest.param({"loglevel": 6}, "02", id="without a level it is 6"),
        pytest.param({"regex": "^(hot|br.*)$"}, "13", id="expression, of the text without its level"),
        pytest.param({"regex": "t", "tail": 1}, "1", id="expression, then tail"),
    ],
)
def test_filters(asked: dict[str, Any], found: str) -> None:
    lines = selected(LINES, msgspec.convert(asked, LogFilter), now=NOW)
    assert "".join(str(LINES.index(line)) for line in lines) == found


@pytest.mark.parametrize(
    ("items", "modules"),
    [
        pytest.param({"id": "all"}, ["edgeAgent", "edgeHub", "sensor", "Sensor2"], id="all"),
        pytest.param({"id": "edge"}, ["edgeAgent", "edgeHub"], id="part of a name"),
        pytest.param({"id": "^sensor$"}, ["sensor"], id="a whole name"),
        pytest.param({"id": "SENSOR"}, ["sensor", "Sensor2"], id="any case"),
        pytest.param([{"id": "hub"}, {"id": "r2"}], ["edgeHub", "Sensor2"], id="several"),
        pytest.param({"id": "none"}, [], id="nobody"),
    ],
)
def test_names(items: Any, modules: list[str]) -> None:
    assert list(request(items=items).wanted(["edgeAgent", "edgeHub", "sensor", "Sensor2"])) == modules


def test_the_first_item_that_names_a_module_counts() -> None:
    wanted = request(items=[{"id": "a", "filter": {"tail": 1}}, {"id": "all", "filter": {"tail": 2}}]).wanted(
        ["a", "b"]
    )
    assert {name: each.tail for name, each in wanted.items()} == {"a": 1, "b": 2}


def test_as_text_and_as_json_packed_or_not() -> None:
    origin = {"iothub": "hub", "device": "edge01", "id": "m"}
    assert written(LINES[1:3], request(), origin) == b"<4> hot\nplain"
    packed = written(LINES[1:3], request(encoding="gzip", contentType="json"), origin)
    hot, plain = json.loads(gzip.decompress(packed))
    assert hot == {
        **origin, "stream": "stdout", "loglevel": 4, "text": "hot", "timestamp": "2023-11-14T20:13:20+00:00"
    }  # fmt: skip
    assert (plain["loglevel"], plain["text"]) == (6, "plain")
    extensions = [request(encoding=e, contentType=t).extension for e in ("none", "gzip") for t in ("text", "json")]
    assert extensions == ["log", "json", "log.gz", "json.gz"]


@pytest.mark.parametrize("text", ["", "yesterday", "1 fortnight", "2026-13-01", "-5m", "9" * 40, "1d 1d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(HubError, match="is not a time"):
        moment(text, now=NOW)


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        assert isinstance(moment(text, now=NOW), float)
    except HubError as error:
        assert error.status == 400  # noqa: PT017 - both outcomes are right


@pytest.mark.parametrize("text", ["(", "x" * 2000, "a{1,99999999999}"])
def test_bad_expressions_are_refused(text: str) -> None:
    with pytest.raises(HubError):
        pattern(text)


def test_lines_know_when_they_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.log"
    path.write_bytes(b"before\n")
    os.utime(path, (NOW - 500, NOW - 500))
    logs = ModuleLogs(lambda: {"m": path, "silent": tmp_path / "none"})
    clock = iter([NOW, NOW + 1, NOW + 2, NOW + 3])
    monkeypatch.setattr("edgeclave.simulator.supervisor.module_logs.time.time", lambda: next(clock))
    assert logs.lines("silent") == []
    assert logs.lines("m") == [LogLine("before", NOW - 500)]
    with path.open("ab") as file:
        file.write(b"one\r\n\xff\n")
    assert [line.at for line in logs.lines("m")] == [NOW - 500, NOW, NOW]
    with path.open("ab") as file:
        file.write(b"unfinished")
    assert logs.lines("m")[-1] == LogLine("unfinished", NOW + 1)
    path.write_bytes(b"cut\n")  # it had grown too large
    assert logs.lines("m") == [LogLine("cut", NOW + 2)]
