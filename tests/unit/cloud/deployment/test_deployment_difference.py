from __future__ import annotations

import json
from typing import Any

import pytest

from edgeclave.cloud.deployment.difference import HIDDEN, compare, compare_values

Change = tuple[str, str, Any, Any]


def content(modules: dict[str, Any] | None = None, **twins: Any) -> dict[str, dict[str, Any]]:
    """A whole deployment of these modules, and their twins."""
    agent = {"$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": modules or {}}}}
    return {**agent, **{name: {"properties.desired": twin} for name, twin in twins.items()}}


def module(image: str = "m:1", **more: Any) -> dict[str, Any]:
    return {"settings": {"image": image, **more.pop("settings", {})}, **more}


def changes(old: Any, new: Any) -> dict[str, list[Change] | str]:
    return {
        each.module: [(field.field, field.kind, field.old, field.new) for field in each.fields] or each.kind
        for each in compare(old, new)
    }


OPTIONS = json.dumps({"HostConfig": {"Memory": 5, "Binds": ["a"], "Labels": "x" * 600}})
CASES = [
    pytest.param(content({"m": module()}), content({"m": module()}), {}, id="nothing"),
    pytest.param(
        content({"m": module("m:1")}),
        content({"m": module("m:2")}),
        {"m": [("settings.image", "changed", "m:1", "m:2")]},
        id="another image",
    ),
    pytest.param(content({"m": module()}), content(), {"m": "removed"}, id="a module goes"),
    pytest.param(
        content(), content({"m": module()}), {"m": [("settings.image", "added", None, "m:1")]}, id="a module comes"
    ),
    pytest.param(
        content({"m": module()}, m={"a": {"b": 1, "c": 2}}),
        content({"m": module()}, m={"a": {"b": 3}}),
        {"m": [("twin.a.b", "changed", 1, 3), ("twin.a.c", "removed", 2, None)]},
        id="a twin, field by field",
    ),
    pytest.param(
        content({"m": module()}, m={"a": 1}), content({"m": module()}), {}, id="a twin that is not spoken of stays"
    ),
    pytest.param(
        content({"m": module()}, m={"a": 1}, gone={"x": 1}),
        content({"m": module()}, m={"a": 1}),
        {},
        id="a twin of a module that is not deployed",
    ),
    pytest.param(
        content({"m": module()}, m={"a": 1, "b": {"c": 1, "d": 2}}),
        {"m": {"properties.desired.b": {"c": 3}}},
        {"m": [("twin.b.c", "changed", 1, 3), ("twin.b.d", "removed", 2, None)]},
        id="a path replaces what is below it only",
    ),
    pytest.param(
        content({"m": module(), "n": module()}),
        {"$edgeAgent": {"properties.desired.modules.n": module("n:2")}},
        {"n": [("settings.image", "changed", "m:1", "n:2")]},
        id="a layer does not remove what is below",
    ),
    pytest.param(
        content({"m": module(settings={"createOptions": OPTIONS[:512], "createOptions01": OPTIONS[512:]})}),
        content({"m": module(settings={"createOptions": OPTIONS.replace("5", "6").replace('"a"', '"b"')})}),
        {
            "m": [
                ("settings.createOptions.HostConfig.Binds", "changed", ["a"], ["b"]),
                ("settings.createOptions.HostConfig.Memory", "changed", 5, 6),
            ]
        },
        id="createOptions are read, however they are cut",
    ),
    pytest.param(
        content({"m": module(settings={"createOptions": "{"})}),
        content({"m": module(settings={"createOptions": "{}"})}),
        {
            "m": [
                ("settings.createOptions", "changed", "{", {}),
            ]
        },
        id="createOptions that are not JSON",
    ),
    pytest.param(
        content({"m": module()}, m={"a": {}}),
        content({"m": module()}, m={"a": {"$version": 3}}),
        {"m": [("twin.a", "removed", {}, None)]},
        id="the hub's bookkeeping is no difference",
    ),
    pytest.param(
        {"$edgeHub": {"properties.desired": {"routes": {"a": "1", "b": "2"}, "$version": 5}}},
        {"$edgeHub": {"properties.desired": {"routes": {"a": "3"}}}},
        {"$edgeHub": [("twin.routes.a", "changed", "1", "3"), ("twin.routes.b", "removed", "2", None)]},
        id="routes",
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), CASES)
def test_what_a_deployment_changes(old: Any, new: Any, expected: Any) -> None:
    assert changes(old, new) == expected


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("password", True),
        ("dbPassword", True),
        ("clientSecret", True),
        ("STORAGE_CONNECTION_STRING", True),
        ("API_KEY", True),
        ("key", True),
        ("accessKey", True),
        ("SAS_TOKEN", True),
        ("keyboard", False),
        ("image", False),
        ("digest", False),
    ],
)
def test_values_that_are_secrets_by_their_name_are_hidden(name: str, hidden: bool) -> None:
    old = content({"m": module(env={name: {"value": "old"}})}, m={name: "old"})
    new = content({"m": module(env={name: {"value": "new"}})}, m={name: "new"})
    values = {value for each in compare(old, new) for field in each.fields for value in (field.old, field.new)}
    assert values == ({HIDDEN} if hidden else {"old", "new"})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(["A=1", "DB_PASSWORD=x"], ["A=1", HIDDEN], id="environment in createOptions"),
        pytest.param("HostName=h;SharedAccessKey=x", HIDDEN, id="a connection string under another name"),
        pytest.param(["FROM=HostName=h;SharedAccessKey=x"], [HIDDEN], id="one in a list"),
        pytest.param([{"Source": "key"}], [{"Source": "key"}], id="a list of objects"),
    ],
)
def test_secrets_inside_values_are_hidden(value: object, shown: object) -> None:
    (difference,) = compare(content({"m": module()}), content({"m": module(x=value)}))
    assert difference.fields[0].new == shown


def test_settings_of_an_automatic_deployment() -> None:
    fields = compare_values({"priority": 1, "labels": {"a": "b"}}, {"priority": 2, "labels": {}})
    assert [(each.field, each.kind) for each in fields] == [
        ("labels.a", "removed"),
        ("priority", "changed"),
    ]
