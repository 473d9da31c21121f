"""JSON in the C guest SDK: the same values and the same text as Python's json module, and never more memory."""

from __future__ import annotations

import importlib
import json
import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wasmtime import Store
from wasmtime.component import Component, Linker

from edgeclave.ta.wrapping import as_component
from tests.fixtures.builds import TRUSTED_APPS, built_wasm
from tests.fixtures.engines import single_threaded_engine

Invoke = Callable[[str, str], Any]
TEXT = st.text(st.characters(codec="utf-8"))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | FLOATS | TEXT,
    lambda children: st.lists(children) | st.dictionaries(TEXT, children),
    max_leaves=40,
)


@pytest.fixture(scope="module")
def invoke() -> Invoke:
    """The core module as a component, in bare wasmtime: it asks nothing of the TEE."""
    engine = single_threaded_engine()
    component = Component(engine, as_component(built_wasm(TRUSTED_APPS / "json_mirror").read_bytes()))
    store = Store(engine)
    store.set_limits(memory_size=16 << 20)
    function = Linker(engine).instantiate(store, component).get_func(store, "invoke")
    assert function is not None
    return lambda method, payload: function(store, method, payload)


def text_of(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@settings(max_examples=400, deadline=None)
@given(JSON)
def test_values_come_back_as_python_writes_them(invoke: Invoke, value: object) -> None:
    assert invoke("mirror", text_of(value)) == text_of(value)
    assert invoke("mirror", json.dumps(value, indent=1)) == text_of(value), "with spaces and escapes"


@settings(max_examples=2000, deadline=None)
@given(st.integers(0, (1 << 64) - 1))
@example(0x3D30000000000000)  # 2**-44: of its two neighbours with 16 digits only the farther one reads back
@example(1)  # the least of all
@example((1 << 52) - 1)
@example(1 << 52)
@example(0x7FEFFFFFFFFFFFFF)
def test_every_double_is_written_as_python_writes_it(invoke: Invoke, bits: int) -> None:
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    if math.isfinite(value):
        assert invoke("mirror", repr(value)) == repr(value)


@settings(max_examples=1000, deadline=None)
@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.builds(lambda digits, exponent: f"{digits}e{exponent}", st.integers(1, 10**30), st.integers(-345, 310))
)
@example("2.4703282292062327208e-324")  # just below half of the least double
@example("9007199254740993")
@example("9007199254740993.00000000000000000000000000000000000000000000001")
@example("1" + "0" * 900 + "e-900")
@example("0." + "0" * 900 + "1e901")
@example("0e999999999999")
@example("1.7976931348623158e308")
@example(str(2**1024 - 2**970))  # the midpoint between the largest double and what would be the next
@example(str(2**1024 - 2**970 - 1))
def test_every_decimal_is_read_as_python_reads_it(invoke: Invoke, decimal: str) -> None:
    value = json.loads(decimal)
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        assert invoke("mirror", decimal) == str(value)
        return
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    assert invoke("mirror", decimal) == (repr(value) if math.isfinite(value) else '"too large for a double"')


def test_a_tie_of_the_longest_kind_is_broken_by_its_last_digit(invoke: Invoke) -> None:
    # The midpoint between the two largest subnormals has 768 digits.
    numerator = (2 * ((1 << 52) - 2) + 1) * 5**1075
    midpoint = f"{numerator}e-1075"
    low, high = (struct.unpack("<d", struct.pack("<Q", (1 << 52) - n))[0] for n in (2, 1))
    assert invoke("mirror", midpoint) == repr(low)
    assert invoke("mirror", f"{numerator}{'0' * 300}1e-1376") == repr(high)


@pytest.mark.parametrize(
    "payload",
    [
        "", " ", "{", "[1,]", "[,1]", '{"a"}', '{"a":}', '{"a":1,}', "{a:1}", "nul", "01", "1.", ".5", "-", "+1", "1e",
        "1e+", "NaN", "Infinity", "'a'", '"', '"\\', '"\\x"', '"\\u12"', '"\\ud800"', '"\\ud800\\u0041"', '"\\udc00"',
        '"\n"', "1 2", "[1]]", "\ufeff1", "[" * 65 + "]" * 65, "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused(invoke: Invoke, payload: str) -> None:
    answer = invoke("mirror", payload)
    assert (answer.status, answer.message) == (400, "the payload is not JSON")


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from('{}[]",:0123456789.eE+-\\u dtruefalsn\n'), max_size=40) | st.text(max_size=20))
def test_it_accepts_what_python_accepts(invoke: Invoke, payload: str) -> None:
    try:
        payload.encode()
        value = json.loads(payload, parse_constant=lambda _: (_ for _ in ()).throw(ValueError()))
        text = text_of(value)
        text.encode()
    except ValueError:
        return  # and what it refuses is in the table above
    answer = invoke("mirror", payload)
    assert isinstance(answer, str), payload


def test_a_member_is_found_though_its_name_is_escaped(invoke: Invoke) -> None:
    assert invoke("member", '{"name": "a\u00e9", "from": {"a": 1, "\\u0061\\u00e9": [3, {}], "b": 4}}') == "[3,{}]"
    assert invoke("member", '{"name": "", "from": {"": 5}}') == "5"
    missing = invoke("member", '{"name": "x", "from": {"xx": 1}}')
    assert (missing.status, missing.message) == (404, "there is no x")
    assert invoke("member", '{"name": "x", "from": [1]}').status == 404


REPEATED = 'payload: an object has two members named "{}"'


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        pytest.param('{"a":1,"a":2}', "a", id="one after the other"),
        pytest.param('{"b":1,"a":2,"b":2,"a":2}', "b", id="the first that is repeated is named"),
        pytest.param('{"a":1,"\\u0061":2}', "a", id="escaped"),
        pytest.param('{"\\ud83d\\ude00":1,"\U0001f600":2}', "\U0001f600", id="beyond the first plane"),
        pytest.param('[{"x":0,"b":[{"q":1, "p":0, "q":2}],"x":1}]', "q", id="inside"),
        pytest.param('{"x":0,"b":[{"q":1},{"q":1}],"x":1}', "x", id="around others"),
        pytest.param('{"":1,"":2}', "", id="no name"),
        pytest.param('{"\\"":1,"\\"":2}', '"', id="a quote"),
        pytest.param('{"%s":1,"%s":2}' % (("é" * 65,) * 2), "é" * 64 + "...", id="a long name"),
    ],
)
def test_two_members_of_one_name_are_refused_alike_in_both_languages(
    invoke: Invoke, guest_sdk: None, payload: str, name: str
) -> None:
    app = importlib.import_module("edgeclave_ta").TrustedApp()
    app.method("mirror")(lambda value: value)
    with pytest.raises(importlib.import_module("edgeclave_ta").Failure) as failed:
        app.invoke("mirror", payload)
    answer = invoke("mirror", payload)
    assert (answer.status, answer.message) == (400, REPEATED.format(name))
    assert (failed.value.status, failed.value.message) == (400, REPEATED.format(name))
    assert invoke("parse", json.dumps(payload)) == text_of(REPEATED.format(name)), "text from elsewhere"
    assert invoke("mirror", "[1]") == "[1]"


Members = list[tuple[str, Any]]
SOME_NAMES = st.text(st.sampled_from("ab\u00e9"), max_size=2)
MEMBERS: st.SearchStrategy[Members] = st.recursive(
    st.lists(st.tuples(SOME_NAMES, st.just(1))),
    lambda inner: st.lists(st.tuples(SOME_NAMES, inner | st.just(1))),
    max_leaves=10,
)


def text_of_members(members: Members | int) -> str:
    if isinstance(members, int):
        return str(members)
    return "{" + ",".join(f"{text_of(name)}:{text_of_members(value)}" for name, value in members) + "}"


@settings(max_examples=300, deadline=None)
@given(MEMBERS)
def test_no_two_members_of_one_name_come_through_and_nothing_else_is_refused(invoke: Invoke, members: Members) -> None:
    text, repeats = text_of_members(members), []
    json.loads(text, object_pairs_hook=lambda pairs: repeats.append(len(dict(pairs)) < len(pairs)))
    answer = invoke("mirror", text)
    assert (answer if not any(repeats) else answer.status) == (text if not any(repeats) else 400)


def test_an_object_of_a_hundred_thousand_names_is_read_in_the_memory_of_its_text(invoke: Invoke) -> None:
    names = [f"{index * 7919 % 100_003:06d}" for index in range(100_000)]
    payload = text_of(dict.fromkeys(names, 0))
    assert invoke("nothing", payload) == "null"
    repeated = payload[:-1] + f',"{names[500]}":1}}'
    assert invoke("nothing", repeated).message == REPEATED.format(names[500])


@pytest.mark.parametrize("status", [0, 418, 65535])
def test_a_failure_keeps_its_status(invoke: Invoke, status: int) -> None:
    answer = invoke("failing", str(status))
    assert (answer.status, answer.message) == (status, "as asked")


@pytest.mark.parametrize("status", [-1, 200, 65536, 70000, (1 << 32) + 400, (1 << 63) - 1, -(1 << 63)])
def test_a_failure_with_a_status_out_of_range_is_a_failure_that_says_so(invoke: Invoke, status: int) -> None:
    answer = invoke("failing", str(status))
    assert (answer.status, answer.message) == (500, "the method failed with a status that no failure can have")


@pytest.mark.parametrize(
    ("method", "status", "message"),
    [
        ("not_a_number", 500, "not finite"),
        ("not_utf8", 500, "not UTF-8"),
        ("unfinished", 500, "begun and not ended"),
        ("no_memory", 507, "out of memory"),
        ("no_reason", 500, "gave no reason"),
        ("none", 404, "there is no method none"),
    ],
)
def test_a_method_that_cannot_answer_fails_cleanly_and_memory_is_there_again(
    invoke: Invoke, method: str, status: int, message: str
) -> None:
    for _ in range(3):
        answer = invoke(method, '"' + "x" * 1000 + '"')
        assert answer.status == status
        assert message in answer.message
    assert invoke("nothing", "1") == "null"
    large = '"' + "x" * (1 << 20) + '"'
    assert invoke("mirror", large) == large
