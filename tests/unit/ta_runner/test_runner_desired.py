from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.edge.twins.trusted_apps import MAX_TRUSTED_APPS, read_desired

GOOD: dict[str, Any] = {
    "package": "/packages/a.ta",
    "digest": "sha256:" + "a" * 64,
    "signer": "b" * 64,
    "recipients": {"out": "AAEC"},
}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


def test_good_entry() -> None:
    desired = read_desired({"trustedApps": {"a": GOOD}, "beacon": "AAEC"})
    assert (desired.problem, desired.refused, desired.complete) == (None, {}, True)
    settings = desired.trusted_apps["a"]
    assert settings.platform == "emulator"
    assert settings.recipient_sets() == {"out": b"\x00\x01\x02"}
    assert desired.beacon == b"\x00\x01\x02"


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({**GOOD, "colour": "red"}, id="unknown field"),
        pytest.param(without("package"), id="package missing"),
        pytest.param(without("digest"), id="digest missing"),
        pytest.param(without("signer"), id="signer missing"),
        pytest.param({**GOOD, "package": ""}, id="package empty"),
        pytest.param({**GOOD, "package": "x" * 3000}, id="package too long"),
        pytest.param({**GOOD, "digest": "a" * 64}, id="digest without its algorithm"),
        pytest.param({**GOOD, "digest": "sha256:" + "A" * 64}, id="digest in capitals"),
        pytest.param({**GOOD, "digest": "sha256:" + "a" * 64 + "\n"}, id="digest with a line end"),
        pytest.param({**GOOD, "signer": "$ANOMALY_SIGNER"}, id="variable not set"),
        pytest.param({**GOOD, "platform": 7}, id="platform as a number"),
        pytest.param({**GOOD, "recipients": ["AAEC"]}, id="recipients as a list"),
        pytest.param({**GOOD, "recipients": {"out": "A+/="}}, id="recipients in the other base64"),
        pytest.param({**GOOD, "recipients": {"out": "AAECA"}}, id="recipients cut off"),
        pytest.param({**GOOD, "recipients": {"out": "A" * 20_000}}, id="recipients too long"),
        pytest.param("text", id="not an object"),
        pytest.param(None, id="null"),
    ],
)
def test_bad_entry_is_refused_and_the_others_go_on(entry: Any) -> None:
    desired = read_desired({"trustedApps": {"bad": entry, "good": GOOD}})
    assert set(desired.trusted_apps) == {"good"}
    assert desired.refused["bad"].code == "bad-trusted-app"
    assert desired.refused["bad"].where.startswith("desired.trustedApps.bad")
    assert desired.complete


@pytest.mark.parametrize("name", ["", "a b", "../up", "a" * 64, "a\n", "-a"])
def test_bad_name_is_refused(name: str) -> None:
    desired = read_desired({"trustedApps": {name: GOOD, "good": GOOD}})
    assert set(desired.trusted_apps) == {"good"}
    assert desired.refused[name].code == "bad-trusted-app-name"


@pytest.mark.parametrize(
    ("twin", "code", "complete"),
    [
        pytest.param({"trustedApps": []}, "bad-twin", False, id="a list"),
        pytest.param({"trustedApps": "x"}, "bad-twin", False, id="text"),
        pytest.param({"trustedapps": {}}, "unknown-twin-field", True, id="misspelt"),
        pytest.param({"beacon": "%%"}, "bad-beacon", True, id="beacon not base64url"),
        pytest.param({"beacon": 7}, "bad-beacon", True, id="beacon not text"),
        pytest.param(
            {"trustedApps": {f"a{number}": GOOD for number in range(MAX_TRUSTED_APPS + 1)}},
            "too-many-trusted-apps",
            True,
            id="too many",
        ),
    ],
)
def test_broken_twin(twin: dict[str, Any], code: str, complete: bool) -> None:
    desired = read_desired(twin)
    assert desired.problem is not None
    assert (desired.problem.code, desired.complete) == (code, complete)
    assert len(desired.trusted_apps) <= MAX_TRUSTED_APPS


def test_empty_twin_asks_for_nothing() -> None:
    desired = read_desired({})
    assert (desired.trusted_apps, desired.problem, desired.complete) == ({}, None, True)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from(["trustedApps", "beacon", "x"]), anything))
def test_never_raises(twin: dict[str, Any]) -> None:
    read_desired(twin)


@given(st.dictionaries(st.sampled_from(["package", "digest", "signer", "platform", "recipients"]), anything))
def test_no_entry_raises(entry: dict[str, Any]) -> None:
    desired = read_desired({"trustedApps": {"a": entry}})
    assert set(desired.refused) | set(desired.trusted_apps) == {"a"}
