"""A checkout that was updated: what an earlier release of the demo left would be refused by this one's reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeclave.demo.prepare import Prepared, forget_another_release
from edgeclave.evidence.runtime import runtime_digest

THIS = runtime_digest().hex()


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    made = Prepared(
        folder=tmp_path,
        template=tmp_path / "deployment.template.json",
        keys=tmp_path / "keys",
        variables=tmp_path / ".env",
        simulator_state=tmp_path / "simulator",
        policy=tmp_path / "policy.toml",
        reader_state=tmp_path / "reader",
    )
    for folder in (made.keys, made.simulator_state, made.reader_state):
        folder.mkdir()
    made.policy.touch()
    return made


@pytest.mark.parametrize(
    ("mark", "stays"),
    [
        pytest.param(THIS, True, id="this release"),
        pytest.param("0" * 64, False, id="another release"),
        pytest.param(None, False, id="one that left no mark"),
    ],
)
def test_it_begins_anew_and_keeps_the_keys(prepared: Prepared, mark: str | None, stays: bool) -> None:
    if mark is not None:
        (prepared.folder / "release").write_text(mark)
    said: list[str] = []
    forget_another_release(prepared, said.append)
    assert [path.exists() for path in (prepared.simulator_state, prepared.reader_state, prepared.policy)] == [stays] * 3
    assert prepared.keys.exists()
    assert bool(said) != stays
    assert (prepared.folder / "release").read_text() == THIS
