"""Declared inputs and outputs of methods: what fits is built, what does not is named by its path."""

from __future__ import annotations

import importlib
import json
import typing
from dataclasses import InitVar, dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture
def sdk(guest_sdk: None) -> Any:
    return importlib.import_module("edgeclave_ta")


@pytest.fixture
def testing(guest_sdk: None) -> Any:
    return importlib.import_module("edgeclave_ta.testing")


class Unit(Enum):
    CELSIUS = "C"
    KELVIN = "K"


@dataclass
class Point:
    x: int
    y: float = 0.0


@dataclass
class Reading:
    value: float
    unit: Unit = Unit.CELSIUS
    points: list[Point] = field(default_factory=list)
    note: str | None = None
    kind: Literal["raw", "mean", 3] = "raw"
    tags: dict[str, bool] = field(default_factory=dict)
    pair: tuple[int, str] | None = None
    rest: tuple[int, ...] = ()
    parent: Reading | None = None  # names itself


@dataclass
class Ordered:
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low must not be above high")


class Batch(TypedDict):
    series: str
    final: NotRequired[bool]
    readings: list[Reading]


class Loose(TypedDict, total=False):
    any: Any
    needed: typing.Required[int]


def method(sdk: Any, testing: Any, kind: Any) -> Any:
    """A harness whose method `take` takes `kind` and returns its repr."""
    app = sdk.TrustedApp()

    def take(payload):  # type: ignore[no-untyped-def]
        return repr(payload)

    take.__annotations__ = {"payload": kind, "return": str}
    app.method(take)
    return testing.Harness(app)


@pytest.mark.parametrize(
    ("kind", "payload", "built"),
    [
        pytest.param(int, "3", 3, id="int"),
        pytest.param(float, "3", 3.0, id="a whole number as float"),
        pytest.param(bool, "true", True, id="bool"),
        pytest.param(None, "null", None, id="null"),
        pytest.param(str, '"é"', "é", id="text"),
        pytest.param(object, "[1]", [1], id="anything"),
        pytest.param(
            Any,
            '{"a": [1e308, 1%s, null, true, "\\ud83d\\ude00"]}' % ("0" * 400),
            {"a": [1e308, 10**400, None, True, "\U0001f600"]},
            id="anything at its limits",
        ),
        pytest.param(list, "[1, null]", [1, None], id="a list of anything"),
        pytest.param(dict, '{"a": []}', {"a": []}, id="an object of anything"),
        pytest.param(int | str, '"a"', "a", id="one of two"),
        pytest.param(typing.Sequence[Point], '[{"x": 1}]', [Point(1)], id="a sequence"),
        pytest.param(typing.Mapping[str, int], '{"a": 1}', {"a": 1}, id="a mapping"),
        pytest.param(Point, '{"x": 1, "y": 2.5}', Point(1, 2.5), id="a dataclass"),
        pytest.param(
            Reading,
            '{"value": 1, "unit": "K", "points": [{"x": 1}], "kind": 3, "tags": {"a": true}, "pair": [1, "b"],'
            ' "rest": [1, 2], "parent": {"value": 2}}',
            Reading(1.0, Unit.KELVIN, [Point(1)], None, 3, {"a": True}, (1, "b"), (1, 2), Reading(2.0)),
            id="everything nested",
        ),
        pytest.param(
            Batch, '{"series": "s", "readings": []}', {"series": "s", "readings": []}, id="a TypedDict, one left out"
        ),
        pytest.param(Loose, '{"needed": 1}', {"needed": 1}, id="a TypedDict that needs one"),
    ],
)
def test_what_fits(sdk: Any, testing: Any, kind: Any, payload: str, built: object) -> None:
    assert json.loads(method(sdk, testing, kind).invoke_text("take", payload)) == repr(built)


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        pytest.param(int, "true", "payload: must be a whole number, not true or false", id="True is no int"),
        pytest.param(int, "1.0", "payload: must be a whole number, not a fraction", id="1.0 is no int"),
        pytest.param(int, '"1"', "payload: must be a whole number, not text", id="text is no int"),
        pytest.param(float, "false", "payload: must be a number, not true or false", id="False is no float"),
        pytest.param(float, "1e999", "payload: must be a number that a float can hold", id="infinity by size"),
        pytest.param(float, "1" + "0" * 400, "payload: must be a number that a float can hold", id="over a float"),
        pytest.param(float, "NaN", "the payload is not JSON", id="NaN"),
        pytest.param(Any, "[-Infinity]", "the payload is not JSON", id="infinity by name"),
        pytest.param(Any, "1e400", "payload: must be a number that a float can hold", id="infinity as anything"),
        pytest.param(list, "[0, -1e999]", "[1]: must be a number that a float can hold", id="infinity in a list"),
        pytest.param(dict, '{"a": [{"b": 1e400}]}', "a[0].b: must be a number that", id="infinity in an object"),
        pytest.param(object, '{"a": "\\ud800"}', "a: must be Unicode text", id="half a character as anything"),
        pytest.param(Any, '{"a": 1, "a": 1}', 'payload: an object has two members named "a"', id="anything, twice"),
        pytest.param(Point, '{"x": 1, "x": 1}', 'payload: an object has two members named "x"', id="a field, twice"),
        pytest.param(bool, "1", "payload: must be true or false, not a number", id="1 is no bool"),
        pytest.param(None, "0", "payload: must be null, not a number", id="0 is not null"),
        pytest.param(str, '"\\ud800"', "payload: must be Unicode text", id="half a character"),
        pytest.param(str, "null", "payload: must be text, not null", id="null is no text"),
        pytest.param(list[int], '{"0": 1}', "payload: must be a list, not an object", id="an object is no list"),
        pytest.param(list[int], "[1, 2, null]", "[2]: must be a whole number, not null", id="in a list"),
        pytest.param(dict[str, int], '{"a": {}}', "a: must be a whole number, not an object", id="in an object"),
        pytest.param(Point, "[]", "payload: must be an object, not a list", id="a list is no dataclass"),
        pytest.param(Point, "{}", "x: is missing", id="a missing field"),
        pytest.param(Point, '{"x": 1, "z": 2}', "z: is no field here", id="an unknown field"),
        pytest.param(
            Reading, '{"value": 1, "points": [{"x": 1}, {"x": "1"}]}', "points[1].x: must be a whole number", id="deep"
        ),
        pytest.param(Reading, '{"value": 1, "parent": {"value": null}}', "parent.value: must be a number", id="self"),
        pytest.param(Reading, '{"value": 1, "kind": "max"}', 'kind: must be "raw", "mean" or 3', id="literal"),
        pytest.param(Reading, '{"value": 1, "kind": 3.0}', "kind: must be", id="3.0 is not the literal 3"),
        pytest.param(Reading, '{"value": 1, "unit": "F"}', 'unit: must be "C" or "K"', id="enum"),
        pytest.param(Reading, '{"value": 1, "note": 1}', "note: must be", id="optional, of another type"),
        pytest.param(Reading, '{"value": 1, "pair": [1]}', "pair: must be", id="a tuple too short"),
        pytest.param(Reading, '{"value": 1, "pair": [1, 2]}', "pair[1]: must be text", id="in a tuple"),
        pytest.param(Reading, '{"value": 1, "rest": [1, "2"]}', "rest[1]: must be a whole number", id="in the rest"),
        pytest.param(Batch, '{"readings": []}', "series: is missing", id="TypedDict, a missing field"),
        pytest.param(Batch, '{"series": "s", "readings": [], "x": 1}', "x: is no field here", id="TypedDict, unknown"),
        pytest.param(Loose, "{}", "needed: is missing", id="TypedDict, the one it needs"),
        pytest.param(Ordered, '{"low": 2, "high": 1}', "payload: low must not be above high", id="its own rule"),
        pytest.param(Point, json.dumps({"x": 1, "n" * 999: 1}), "n" * 64 + "...: is no field", id="a long name"),
        pytest.param(list[Any], "[" * 100_000, "the payload is not JSON", id="too deep"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(sdk: Any, testing: Any, kind: Any, payload: str, said: str) -> None:
    with pytest.raises(sdk.Failure) as failed:
        method(sdk, testing, kind).invoke_text("take", payload)
    assert failed.value.status == 400
    assert failed.value.message.startswith(said)


@pytest.mark.parametrize(
    ("bound", "kind", "payload", "said"),
    [
        pytest.param(("Range", 0, 100), int, "0", "", id="at the minimum"),
        pytest.param(("Range", 0, 100), float, "100", "", id="at the maximum"),
        pytest.param(("Range", 0, 100), int, "-1", "must be at least 0 and at most 100", id="below"),
        pytest.param(("Range", 0, 100), float, "100.5", "must be at least 0 and at most 100", id="above"),
        pytest.param(("Range", None, 5), int, "6", "must be at most 5", id="only a maximum"),
        pytest.param(("Range", 0), int | None, "null", "", id="nothing to compare"),
        pytest.param(("Length", 1), str, '""', "must have at least 1 characters, not 0", id="empty text"),
        pytest.param(
            ("Length", 0, 2), list[int], "[1,2,3]", "must have at least 0 and at most 2 entries, not 3", id="long list"
        ),
        pytest.param(("Length", 0, 2), dict[str, int], '{"a":1}', "", id="a short object"),
    ],
)
def test_bounds(sdk: Any, testing: Any, bound: tuple[Any, ...], kind: Any, payload: str, said: str) -> None:
    rule = getattr(sdk, bound[0])(*bound[1:])
    harness = method(sdk, testing, Annotated[kind, rule])
    if not said:
        harness.invoke_text("take", payload)
        return
    with pytest.raises(sdk.Failure) as failed:
        harness.invoke_text("take", payload)
    assert failed.value.message == f"payload: {said}"


def test_a_method_without_a_parameter_takes_null_only(sdk: Any, testing: Any) -> None:
    app = sdk.TrustedApp()

    @app.method
    def status() -> dict[str, int]:
        return {"count": 1}

    assert testing.Harness(app).invoke("status") == {"count": 1}
    with pytest.raises(sdk.Failure, match="takes no payload"):
        testing.Harness(app).invoke("status", {})


def test_dataclasses_go_in_and_out(sdk: Any, testing: Any) -> None:
    app = sdk.TrustedApp()

    @app.method
    def turn(reading: Reading) -> Point:
        sdk.tee.emit("out", reading.points)
        return reading.points[0]

    harness = testing.Harness(app)
    assert harness.invoke("turn", Reading(1.0, points=[Point(3, 4.0)])) == {"x": 3, "y": 4.0}
    assert harness.emitted[0].payload == [{"x": 3, "y": 4.0}]


@pytest.mark.parametrize(
    ("returned", "declared"),
    [
        pytest.param(Point("1"), Point, id="a field of another type"),  # type: ignore[arg-type]
        pytest.param({"x": 1, "z": 1}, Point, id="an unknown field"),
        pytest.param(None, int, id="nothing for a number"),
        pytest.param(1, None, id="a number for nothing"),
        pytest.param(float("nan"), float, id="not a number"),
    ],
)
def test_a_reply_that_is_not_what_was_declared(sdk: Any, testing: Any, returned: Any, declared: Any) -> None:
    app = sdk.TrustedApp()

    def give(_payload):  # type: ignore[no-untyped-def]
        return returned

    give.__annotations__ = {"return": declared}
    app.method(give)
    harness = testing.Harness(app)
    with pytest.raises(sdk.Failure, match="500") as failed:
        harness.invoke("give")
    assert "something else than it declares" in failed.value.message
    assert harness.logs


@pytest.mark.parametrize("kind", [bytes, set[int], dict[int, str], complex, list[bytes], "Undefined"], ids=str)
def test_types_that_json_cannot_be_read_as_are_refused_while_building(sdk: Any, kind: Any) -> None:
    def take(payload):  # type: ignore[no-untyped-def]
        return payload

    take.__annotations__ = {"payload": kind}
    with pytest.raises((TypeError, NameError)):
        sdk.TrustedApp().method(take)


@dataclass
class Aided:
    x: int
    aid: InitVar[int]


@dataclass(init=False)
class Own:
    x: int

    def __init__(self, other: int) -> None:
        self.x = other


@pytest.mark.parametrize("kind", [Aided, list[Aided], Own], ids=["an InitVar", "in a list", "an __init__ of its own"])
def test_dataclasses_that_cannot_be_made_of_their_fields_are_refused_while_building(sdk: Any, kind: Any) -> None:
    for _ in range(2):
        with pytest.raises(TypeError, match="cannot be made of its fields"):
            method(sdk, None, kind)


async def waits(payload: int) -> int:
    return payload


def takes_two(payload: int, more: int) -> int:
    return payload + more


def takes_it_by_name(*, payload: int) -> int:
    return payload


def takes_names(**payload: int) -> int:
    return len(payload)


@pytest.mark.parametrize("function", [waits, takes_two, takes_it_by_name, takes_names])
def test_functions_that_cannot_be_called_with_a_payload_are_refused_while_building(sdk: Any, function: Any) -> None:
    with pytest.raises(TypeError, match=f"method {function.__name__}: must"):
        sdk.TrustedApp().method(function)


def test_a_default_may_follow_the_payload(sdk: Any, testing: Any) -> None:
    app = sdk.TrustedApp()

    @app.method
    def scaled(payload: int, factor: int = 2) -> int:
        return payload * factor

    assert testing.Harness(app).invoke("scaled", 4) == 8


def test_storage_keeps_dataclasses_as_json(sdk: Any) -> None:
    reading = Reading(1.5, Unit.KELVIN, [Point(1)])
    assert sdk.from_json(Reading, sdk.to_json(reading)) == reading
    with pytest.raises(ValueError, match=r"points\[0\]\.x"):
        sdk.from_json(Reading, '{"value": 1, "points": [{"x": null}]}')
    with pytest.raises(ValueError, match="two members named"):
        sdk.from_json(Reading, '{"value": 1, "value": 2}')


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "x", "parent"]), inner),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON_VALUES)
def test_any_json_is_taken_or_answered_with_400(sdk: Any, testing: Any, value: Any) -> None:
    harness = method(sdk, testing, Reading)
    status = 200
    try:
        harness.invoke_text("take", json.dumps(value))
    except sdk.Failure as failure:
        status = failure.status
    assert status in (200, 400)
