from __future__ import annotations

import io
import json

import pytest

from edgeclave.cloud.findings import Finding
from edgeclave.cloud.lines import PAYLOAD_CHARACTERS, HumanLines, JsonLines, printable
from edgeclave.cloud.summary import Counts

HOSTILE = "\x1b[2J\x07[bold]x[/]\r\n\u202e\u2028"


def human(finding: Finding) -> str:
    stream = io.StringIO()
    HumanLines(stream).findings([finding])
    return stream.getvalue()


@pytest.mark.parametrize(
    "finding",
    [
        pytest.param(Finding("refused", HOSTILE, code="x", what=HOSTILE, advice=HOSTILE), id="refused"),
        pytest.param(Finding("result", HOSTILE, slot=HOSTILE, output=HOSTILE, payload=HOSTILE), id="payload"),
        pytest.param(Finding("result", "d", text=HOSTILE), id="text"),
    ],
)
def test_what_a_device_says_never_reaches_the_terminal_as_control(finding: Finding) -> None:
    shown = human(finding)
    assert all(part.isprintable() for part in shown.replace("\n", ""))
    assert "[bold]x[/]" in shown


def test_printable_text_is_shown_as_it_is() -> None:
    assert printable("Grüße, 你好 [x]") == "Grüße, 你好 [x]"


def test_a_long_payload_is_cut_for_people_and_whole_for_programs() -> None:
    finding = Finding("result", "edge01", payload={"x": "y" * 5000}, number=7)
    assert len(human(finding)) < PAYLOAD_CHARACTERS + 60
    stream = io.StringIO()
    JsonLines(stream).findings([finding])
    assert json.loads(stream.getvalue()) == {
        "kind": "result",
        "device": "edge01",
        "number": 7,
        "payload": {"x": "y" * 5000},
    }


def test_a_payload_of_null_is_not_an_absent_one() -> None:
    stream = io.StringIO()
    JsonLines(stream).findings([Finding("result", "d", payload=None), Finding("heartbeat", "d")])
    null, absent = map(json.loads, stream.getvalue().splitlines())
    assert null["payload"] is None
    assert "payload" not in absent


def test_trouble_says_what_to_do() -> None:
    assert "do: look" in human(Finding("rollback", "edge01", code="rollback", what="older", advice="look"))


def test_an_empty_run_is_no_trouble() -> None:
    stream = io.StringIO()
    summary = Counts().summary([], {}, 0)
    HumanLines(stream).summary(summary)
    assert not summary.troubled
    assert "0 results verified" in stream.getvalue()
