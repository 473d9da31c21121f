import pytest

from edgeclave.simulator.credentials import Credentials
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import MAX_MODULES_PER_DEVICE, Identities, IdentityName
from edgeclave.simulator.store import Store


@pytest.mark.parametrize(
    ("device", "module", "status"),
    [
        pytest.param("", "", 400, id="empty device id"),
        pytest.param("a b", "", 400, id="space"),
        pytest.param("a/b", "", 400, id="slash"),
        pytest.param("x" * 129, "", 400, id="too long"),
        pytest.param("edge01", "ümläut", 400, id="not ASCII"),
        pytest.param("nowhere", "m", 404, id="module of an unknown device"),
        pytest.param("edge01", "", 409, id="device that is there"),
        pytest.param("edge01", "m1", 409, id="module that is there"),
    ],
)
def test_create_refuses(identities: Identities, device: str, module: str, status: int) -> None:
    with pytest.raises(HubError) as refused:
        identities.create(IdentityName(device, module))
    assert refused.value.status == status


@pytest.mark.parametrize("key", ["not base64!", "YQ=="])
def test_bad_keys_are_refused(identities: Identities, key: str) -> None:
    with pytest.raises(HubError, match="symmetric key"):
        identities.create(IdentityName("edge01", "m2"), Credentials(primary_key=key))


def test_every_module_has_an_address_of_its_own_and_they_are_used_again(identities: Identities) -> None:
    second = identities.create(IdentityName("edge01", "m2"))
    assert (identities.get(IdentityName("edge01", "m1")).address, second.address) == ("127.9.9.10", "127.9.9.11")
    identities.delete(IdentityName("edge01", "m1"))
    assert identities.create(IdentityName("edge01", "m3")).address == "127.9.9.10"


def test_a_device_has_a_limit_of_modules(identities: Identities) -> None:
    for number in range(MAX_MODULES_PER_DEVICE - 3):
        identities.create(IdentityName("edge01", f"x{number}"))
    with pytest.raises(HubError, match="at most"):
        identities.create(IdentityName("edge01", "one_more"))


def test_deleting_a_device_deletes_its_modules_and_tells(identities: Identities, store: Store) -> None:
    gone: list[str] = []
    identities.on_deleted.append(lambda identity: gone.append(str(identity.name)))
    identities.delete(IdentityName("edge01"))
    store.commit()
    assert gone == ["edge01/$edgeAgent", "edge01/$edgeHub", "edge01/m1", "edge01"]
    assert store.connection.execute("SELECT count(*) FROM twins").fetchone()[0] == 0


def test_update_needs_the_current_etag(identities: Identities) -> None:
    name = IdentityName("edge01", "m1")
    etag = identities.get(name).etag
    identities.update(name, enabled=False, if_match=etag)
    with pytest.raises(HubError) as refused:
        identities.update(name, if_match=etag)
    assert refused.value.status == 412
    assert not identities.get(name).enabled
