import json

import pytest

from edgeclave.deployment.routes import Input, Upstream, parse_route, parse_routes
from edgeclave.errors import ConfigurationError
from edgeclave.simulator.message import Message, decode_properties, encode_properties

MODULE = "/modules/b/inputs/i"
SOURCE = "/messages/modules/sample/outputs/alerts"


@pytest.mark.parametrize(
    ("source", "matches"),
    [
        pytest.param("/*", True, id="everything"),
        pytest.param("/messages/*", True, id="all messages"),
        pytest.param("/messages", True, id="all messages, no star"),
        pytest.param("/messages/modules/sample/*", True, id="one module"),
        pytest.param("/messages/modules/SAMPLE/outputs/Alerts", True, id="case does not count"),
        pytest.param("/messages/modules/sam", False, id="the beginning of a name is not the name"),
        pytest.param("/messages/modules/sam*", False, id="nor with a star, as in edgeHub"),
        pytest.param("/messages/modules/*/outputs/alerts", True, id="any module, one output"),
        pytest.param("/messages/modules/*/outputs/*", True, id="any module, any output"),
        pytest.param("/messages/modules/*/outputs/other", False, id="any module, another output"),
        pytest.param("/messages/modules/other/*", False, id="another module"),
        pytest.param("/twinChangeNotifications", False, id="another kind"),
        pytest.param("/messages/modules/s.mple/*", False, id="a dot is a dot"),
    ],
)
def test_source(source: str, matches: bool) -> None:
    route = parse_route("r", f"FROM {source} INTO $upstream")
    assert route.matches(SOURCE, lambda _: None) is matches


@pytest.mark.parametrize(
    ("text", "sink"),
    [
        pytest.param("FROM /* INTO $upstream", Upstream(), id="upstream"),
        pytest.param("from /messages/* into $UPSTREAM", Upstream(), id="small letters"),
        pytest.param("SELECT * FROM /* INTO $upstream", Upstream(), id="with select"),
        pytest.param(f'FROM /* INTO BrokeredEndpoint("{MODULE}")', Input("b", "i"), id="module"),
        pytest.param(f"FROM /* INTO brokeredendpoint( '{MODULE}' )", Input("b", "i"), id="single quotes, spaces"),
        pytest.param(
            f'FROM /*\n WHERE a = "1"\n INTO BrokeredEndpoint("{MODULE}")', Input("b", "i"), id="several lines"
        ),
    ],
)
def test_sink(text: str, sink: Upstream | Input) -> None:
    assert parse_route("r", text).sink == sink


@pytest.mark.parametrize(
    ("routes", "place", "reason"),
    [
        pytest.param({"r": "FROM /* TO $upstream"}, "routes.r", "not a route", id="TO for INTO"),
        pytest.param({"r": "FROM /* INTO upstream"}, "routes.r", "not a place", id="upstream without $"),
        pytest.param({"r": "/* INTO $upstream"}, "routes.r", "not a route", id="FROM forgotten"),
        pytest.param({"r": "FROM messages/* INTO $upstream"}, "routes.r", "does not start", id="slash forgotten"),
        pytest.param(
            {"r": 'FROM /* INTO BrokeredEndpoint("/modules/b/input/i")'},
            "routes.r",
            "not a place",
            id="input, no s",
        ),
        pytest.param({"r": f"FROM /* INTO BrokeredEndpoint({MODULE})"}, "routes.r", "not a place", id="no quotes"),
        pytest.param(
            {"r": "FROM /* WHERE a == '1' INTO $upstream"}, "routes.r, column 18", "expected", id="bad condition"
        ),
        pytest.param({"r": {"route": "FROM /* INTO $upstream", "prio": 1}}, "routes.r", "prio", id="unknown member"),
        pytest.param({"r": {"priority": 1}}, "routes.r", "route", id="no route in it"),
        pytest.param(
            {"r": {"route": "FROM /* INTO $upstream", "priority": 10}}, "routes.r", "priority 10", id="priority 10"
        ),
        pytest.param(
            {"r": {"route": "FROM /* INTO $upstream", "timeToLiveSecs": -1}},
            "routes.r",
            "timeToLive",
            id="negative",
        ),
        pytest.param({"r.x": "FROM /* INTO $upstream"}, "routes.r.x", "name", id="a dot in the name"),
        pytest.param({"r": 7}, "routes.r", "text", id="a number"),
        pytest.param([], "$edgeHub", "object", id="an array"),
    ],
)
def test_refuses_with_reason_and_place(routes: object, place: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_routes({"routes": routes})
    assert reason in refused.value.what
    assert refused.value.where.endswith(place)


def test_time_to_live_comes_from_the_route_or_from_the_hub() -> None:
    desired = {
        "routes": {
            "own": {"route": "FROM /* INTO $upstream", "priority": 0, "timeToLiveSecs": 60},
            "shared": {"route": "FROM /* INTO $upstream"},
        },
        "storeAndForwardConfiguration": {"timeToLiveSecs": 600},
    }
    routes = {route.name: (route.priority, route.time_to_live_seconds) for route in parse_routes(desired)}
    assert routes == {"own": (0, 60), "shared": (9, 600)}


def test_a_condition_sees_body_only_when_it_says_it_is_json() -> None:
    route = parse_route("r", "FROM /* WHERE $body.t > 20 INTO $upstream")
    body = json.dumps({"t": 21}).encode()
    said = {"$.ct": "application/json", "$.ce": "utf-8"}
    assert route.matches(SOURCE, Message(body, {}, said).resolve)
    assert route.matches(SOURCE, Message(body.decode().encode("utf-16-le"), {}, {**said, "$.ce": "UTF-16"}).resolve)
    for system in ({}, {"$.ct": "application/json"}, {**said, "$.ct": "text/json"}, {**said, "$.ce": "latin-1"}):
        assert not route.matches(SOURCE, Message(body, {}, system).resolve)
    for broken in (b"{", b"[1]", b"\xff", b"[" * 100_000):
        assert not route.matches(SOURCE, Message(broken, {}, said).resolve)


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        pytest.param("$body.rows[1].t = 2", True, id="a row"),
        pytest.param("$BODY.rows[1].t = 2", True, id="the word body in any case"),
        pytest.param("$body.Rows[1].t = 2", False, id="names in it exactly"),
        pytest.param("$body.rows[7].t = null", True, id="a row that is not there is null"),
        pytest.param("is_array($body.rows) AND is_object($body.rows[0])", True, id="types"),
        pytest.param("is_defined($body.at)", False, id="a date is undefined, as in edgeHub"),
        pytest.param("LEVEL = 'high'", True, id="properties in any case"),
        pytest.param("$messageId = 'm-1' AND $cid = 'c'", True, id="system properties"),
        pytest.param("$connectionDeviceId = 'edge01' AND $connectionModuleId = 'a'", True, id="the sender"),
        pytest.param("$own = 'mine'", True, id="an application property with a dollar"),
        pytest.param("$messageid = 'm-1' AND {$contentType} = 'x'", False, id="in braces the system's"),
        pytest.param("$contentType = 'x'", True, id="without, the application's"),
        pytest.param("note = 'into INTO $upstream where'", True, id="words of a route in a text"),
    ],
)
def test_what_a_condition_can_ask(condition: str, matches: bool) -> None:
    body = json.dumps({"rows": [{"t": 1}, {"t": 2}], "at": "2026-01-02T03:04:05.678Z"}).encode()
    properties = {"Level": "high", "$own": "mine", "$contentType": "x", "note": "into INTO $upstream where"}
    system = {"$.ct": "application/json", "$.ce": "utf-8", "$.mid": "m-1", "$.cid": "c"}
    system |= {"$.cdid": "edge01", "$.cmid": "a"}
    route = parse_route("r", f"FROM /messages/* WHERE {condition} INTO $upstream")
    assert route.matches(SOURCE, Message(body, properties, system).resolve) is matches


def test_properties_come_back_as_they_were() -> None:
    properties, system = {"k e/y&": "a b/c&d=é+%", "empty": ""}, {"$.mid": "1", "$.ct": "a/b"}
    assert decode_properties(encode_properties(properties, system)) == (properties, system)
