import base64

import pytest
from azure.iot.hub.sastoken import SasToken  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.sas import SharedAccessSignature, make_token

KEY = base64.b64encode(b"k" * 32).decode()
OTHER = base64.b64encode(b"o" * 32).decode()
HOSTS = ("hub.test",)
PATH = "/devices/edge01/modules/m1"
GOOD = make_token("hub.test" + PATH, KEY)


def check(token: str, keys: tuple[str, ...] = (KEY,), path: str = PATH, now: float | None = None) -> None:
    SharedAccessSignature.parse(token).check(keys, hosts=HOSTS, path=path, now=now)


@pytest.mark.parametrize(
    "keys", [pytest.param((KEY, OTHER), id="primary key"), pytest.param((OTHER, KEY), id="secondary key")]
)
def test_either_key_may_have_signed(keys: tuple[str, ...]) -> None:
    check(GOOD, keys)


def test_a_token_of_azure_iot_hub_itself() -> None:
    check(str(SasToken("hub.test:8443", KEY, "iothubowner")), path="")


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        pytest.param(make_token("hub.test" + PATH, OTHER), "does not match", id="signed with another key"),
        pytest.param(make_token("hub.test/devices/edge01/modules/m2", KEY), "another resource", id="another module"),
        pytest.param(make_token("evil.test" + PATH, KEY), "another resource", id="another hub"),
        pytest.param(make_token("hub.test", KEY), "another resource", id="the whole hub"),
        pytest.param(make_token("hub.test" + PATH, KEY, ttl_seconds=-1), "expired", id="expired"),
        pytest.param(GOOD.replace("se=", "se=9"), "does not match", id="expiry changed"),
        pytest.param(GOOD.replace("SharedAccessSignature ", ""), "there is no", id="no prefix"),
        pytest.param(GOOD + "&x=1", "unknown", id="unknown field"),
        pytest.param(GOOD + "&se=1", "repeated", id="repeated field"),
        pytest.param("SharedAccessSignature sr=a&sig=b", "malformed", id="no expiry"),
        pytest.param("SharedAccessSignature sr=a&sig=!&se=1", "malformed", id="signature that is not base64"),
        pytest.param("SharedAccessSignature sr=a&sig=&se=x", "malformed", id="expiry that is no number"),
        pytest.param("", "there is no", id="nothing"),
        pytest.param("SharedAccessSignature " + "a" * 9000, "there is no", id="too long"),
    ],
)
def test_refuses_with_a_reason(token: str, reason: str) -> None:
    with pytest.raises(HubError, match=reason) as refused:
        check(token)
    assert refused.value.status == 401
    assert KEY not in str(refused.value)


@given(st.text(max_size=200))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(HubError):
        check("SharedAccessSignature " + text)
