"""What waits for a module's input can be sent to it."""

import pytest

from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import Identities, IdentityName
from edgeclave.simulator.inputs import InputQueue
from edgeclave.simulator.message import MAX_PROPERTY_BAG_CHARACTERS, Message, decode_properties
from edgeclave.simulator.message_log import StoredMessageLog
from edgeclave.simulator.mqtt.codec import Publish, encode_publish
from edgeclave.simulator.store import Store
from edgeclave.simulator.twins import Twins

MODULE = IdentityName("edge01", "m1")


@pytest.fixture
def hub(store: Store, identities: Identities, twins: Twins) -> EdgeHub:
    return EdgeHub(store, identities, twins, StoredMessageLog(store), "edge01")


def _queued(bag: str, hub: EdgeHub) -> InputQueue:
    hub.send_to_input(MODULE, "in", Message(b"x", *decode_properties(bag)))
    return hub.inputs


def test_the_longest_properties_that_are_accepted_fit_into_a_topic(hub: EdgeHub) -> None:
    (queued,) = _queued("a=".ljust(MAX_PROPERTY_BAG_CHARACTERS, "x"), hub).next(MODULE, 10)
    assert len(encode_publish(Publish(queued.topic, queued.body, 1, 1))) > MAX_PROPERTY_BAG_CHARACTERS


def test_properties_that_grow_too_long_when_they_are_encoded_are_refused(hub: EdgeHub) -> None:
    with pytest.raises(HubError, match="too long for an input"):
        _queued("a=".ljust(MAX_PROPERTY_BAG_CHARACTERS, "\u20ac"), hub)
    assert hub.inputs.count(MODULE) == 0
