from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from ta_runner.reporting import Reporter, _without_none, difference
from ta_runner.status import MAX_REASON_CHARACTERS, Status

from edgeclave.edge.hub import HubOffline
from edgeclave.edge.twin import merge
from edgeclave.errors import EdgeclaveError
from tests.fixtures.waiting import eventually

objects = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        st.none() | st.integers(0, 3) | st.text(max_size=2),
        lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
        max_leaves=8,
    ),
)


@given(objects, objects)
def test_patch_leads_from_old_to_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    old = _without_none(old)
    assert merge(old, difference(old, new)) == _without_none(new)


@given(objects)
def test_nothing_changed_is_nothing_to_send(value: dict[str, Any]) -> None:
    assert difference(_without_none(value), value) == {}


class Hub:
    def __init__(self) -> None:
        self.patches: list[dict[str, Any]] = []
        self.online = True

    async def report(self, patch: dict[str, Any]) -> None:
        if not self.online:
            raise HubOffline("away")
        self.patches.append(patch)


async def test_reports_once_what_changed_and_again_when_the_hub_is_back() -> None:
    hub, now = Hub(), {"a": {"state": "starting"}}
    reporter = Reporter(lambda: {**now}, hub.report)
    reporter.resume({"a": {"state": "running"}, "gone": 1})
    task = asyncio.create_task(reporter.run())
    await eventually(lambda: hub.patches)
    assert hub.patches == [{"a": {"state": "starting"}, "gone": None}]
    hub.online = False
    now["a"] = {"state": "running"}
    for _ in range(3):
        reporter.changed()
    await asyncio.sleep(0.5)
    hub.online = True
    await eventually(lambda: len(hub.patches) == 2)
    reporter.changed()
    await asyncio.sleep(0.4)
    assert hub.patches[1:] == [{"a": {"state": "running"}}]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_reason_is_cut_to_size() -> None:
    status = Status("failed", reason=EdgeclaveError("code", "x" * 5000, where="y" * 5000, advice="z" * 5000))
    reason = status.reported()["reason"]
    assert reason["code"] == "code"
    assert all(len(text) <= MAX_REASON_CHARACTERS for text in reason.values())
