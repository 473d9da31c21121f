from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import quote_plus

import pytest

from edgeclave.simulator.amqp.access import SharedAccessKeys
from edgeclave.simulator.amqp.types import AmqpError

KEY = SharedAccessKeys("sim-hub", {"iothubowner": "c2VjcmV0"})
NOW = 1_700_000_000
GROUP = "sb://127.0.0.1/sim-hub/consumergroups/$Default"


def token(resource: str = GROUP, key: str = "c2VjcmV0", expiry: object = NOW + 60, name: str = "iothubowner") -> str:
    quoted = quote_plus(resource)
    signature = hmac.new(key.encode(), f"{quoted}\n{expiry}".encode(), hashlib.sha256).digest()
    encoded = quote_plus(base64.b64encode(signature))
    return f"SharedAccessSignature sr={quoted}&sig={encoded}&se={expiry}&skn={name}"


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param(GROUP, id="the node itself"),
        pytest.param("sb://127.0.0.1/SIM-HUB", id="the hub, in capitals"),
        pytest.param("sb://127.0.0.1/", id="the namespace"),
    ],
)
def test_a_token_opens_what_it_covers(resource: str) -> None:
    assert KEY.check_token(token(resource), GROUP, now=NOW) == NOW + 60


@pytest.mark.parametrize(
    ("bad", "audience", "reason"),
    [
        pytest.param(token(key="b3RoZXI="), GROUP, "signature", id="signed with another key"),
        pytest.param(token(expiry=NOW), GROUP, "expired", id="expired"),
        pytest.param(token(expiry="soon"), GROUP, "expired", id="expiry is not a number"),
        pytest.param(token(expiry="²"), GROUP, "expired", id="expiry in a digit that is not ASCII"),
        pytest.param(token(name="device"), GROUP, "policy", id="of another policy"),
        pytest.param(token("sb://127.0.0.1/other-hub"), GROUP, "resource", id="for another hub"),
        pytest.param(token(), "sb://127.0.0.1/sim-hub", "resource", id="for a group, used for the hub"),
        pytest.param(token("sb://127.0.0.1/"), "sb://127.0.0.1/other-hub", "resource", id="used for another hub"),
        pytest.param(token("sb://127.0.0.1/sim-hub/consumergroups/$Def"), GROUP, "resource", id="prefix of a name"),
        pytest.param(token().replace("Signature", "Signatur", 1), GROUP, "SharedAccessSignature", id="another scheme"),
        pytest.param(token().replace("&se=", "&xx="), GROUP, "sig and se", id="no expiry"),
        pytest.param(token().replace(f"se={NOW + 60}", f"se={NOW + 61}"), GROUP, "signature", id="expiry moved"),
        pytest.param(token() + "&se=9999999999", GROUP, "signature", id="a second expiry"),
        pytest.param("", GROUP, "SharedAccessSignature", id="empty"),
        pytest.param(token() + "&x=" + "y" * 5000, GROUP, "SharedAccessSignature", id="too long"),
    ],
)
def test_a_bad_token_is_refused_with_the_reason(bad: str, audience: str, reason: str) -> None:
    with pytest.raises(AmqpError, match=reason) as caught:
        KEY.check_token(bad, audience, now=NOW)
    assert caught.value.condition == "amqp:unauthorized-access"
    assert "c2VjcmV0" not in caught.value.description


@pytest.mark.parametrize(
    ("response", "accepted"),
    [
        pytest.param(b"\0iothubowner\0c2VjcmV0", True, id="name and key"),
        pytest.param(b"\0iothubowner\0other", False, id="wrong key"),
        pytest.param(b"\0other\0c2VjcmV0", False, id="wrong name"),
        pytest.param(b"iothubowner c2VjcmV0", False, id="no separators"),
        pytest.param(None, False, id="nothing"),
    ],
)
def test_sasl_plain_takes_name_and_key(response: bytes | None, accepted: bool) -> None:
    assert KEY.check_plain(response) is accepted


def test_the_key_never_shows_in_a_representation() -> None:
    assert "c2VjcmV0" not in repr(KEY)
