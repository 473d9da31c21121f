"""How configurations of different priority make one content."""

from typing import Any

import pytest

from edgeclave.simulator.layers import Configuration, combined, overlay, stack

WHOLE = "properties.desired"
BASE = {"$edgeAgent": {WHOLE: {"modules": {"m": {"v": 1}}}}}
LAYER = {"$edgeAgent": {f"{WHOLE}.modules.n": {"v": 2}}}


def configuration(name: str, priority: int, content: Any, created: str = "2026-01-01") -> Configuration:
    return Configuration(
        name, {"priority": priority, "content": {"modulesContent": content}}, "", created, created, None
    )


@pytest.mark.parametrize(
    ("targeting", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([("layer", 9, LAYER)], [], id="a layer without a base"),
        pytest.param([("low", 1, BASE), ("high", 2, BASE)], ["high"], id="the base of highest priority"),
        pytest.param([("new", 1, BASE, "2026-02-01"), ("old", 1, BASE)], ["new"], id="of equals, the newest"),
        pytest.param([("base", 5, BASE), ("under", 5, LAYER)], ["base"], id="a layer must be above its base"),
        pytest.param(
            [("top", 9, LAYER), ("base", 1, BASE), ("middle", 4, LAYER)], ["base", "middle", "top"], id="layers rise"
        ),
    ],
)
def test_which_deployments_count(targeting: list[Any], expected: list[str]) -> None:
    assert [each.id for each in stack([configuration(*each) for each in targeting])] == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        pytest.param(
            [BASE, LAYER], {"$edgeAgent": {WHOLE: {"modules": {"m": {"v": 1}, "n": {"v": 2}}}}}, id="adds a module"
        ),
        pytest.param(
            [{"m": {WHOLE: {"a": {"x": 1}, "b": 2}}}, {"m": {f"{WHOLE}.a": {"y": 3}}}],
            {"m": {WHOLE: {"a": {"y": 3}, "b": 2}}}, id="a path replaces what stood there",
        ),
        pytest.param(
            [{"m": {WHOLE: {"a": 1}}}, {"m": {WHOLE: {"b": 2}}}], {"m": {WHOLE: {"b": 2}}}, id="the whole replaces all",
        ),
        pytest.param(
            [{"m": {f"{WHOLE}.a.b": 1, f"{WHOLE}.c": 2}}, {"m": {f"{WHOLE}.a": {"d": 3}}}],
            {"m": {f"{WHOLE}.c": 2, f"{WHOLE}.a": {"d": 3}}}, id="paths without a whole stay paths",
        ),
        pytest.param(
            [{"m": {f"{WHOLE}.a": 1}}, {"m": {WHOLE: {"b": 2}, f"{WHOLE}.c": 3}}],
            {"m": {WHOLE: {"b": 2, "c": 3}}}, id="a whole and a path in one layer",
        ),
    ],
)  # fmt: skip
def test_layers_become_one_content(layers: list[Any], expected: Any) -> None:
    assert combined(layers) == expected


def test_what_is_put_on_leaves_the_original_alone() -> None:
    section = {"a": {"b": 1}}
    assert overlay(section, ["a", "c"], 2) == {"a": {"b": 1, "c": 2}}
    assert section == {"a": {"b": 1}}
