"""Whatever stands anywhere in a template: findings, never a traceback; what the check lets pass can be generated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeclave.deployment import check_deployment, generate
from edgeclave.errors import ConfigurationError
from tests.fixtures.deployment_solution import ROOT, copy_solution

Place = tuple[str | int, ...]
FILES = (
    "deployment.template.json",
    "deployments/tee-sgx.template.json",
    "deployments/second-trusted-app.template.json",
)
NAMES = st.sampled_from(
    ["HostConfig", "Privileged", "Binds", "properties.desired", "properties.desired.", "", "a b", "route"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["${MODULES.x}", "$X", "FROM /* INTO $upstream", "docker", "a:b:c", "@", ":", "/", "//", "{}"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES | st.text(max_size=8), below, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    yield path
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in below:
        yield from places(each, (*path, key))


DOCUMENTS = {name: json.loads((ROOT / name).read_text()) for name in FILES}
PLACES = [(name, path) for name, document in DOCUMENTS.items() for path in places(document)]


@pytest.fixture(scope="module")
def solution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_solution(tmp_path_factory.mktemp("fuzz"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(PLACES), VALUES, st.none() | NAMES | st.text(max_size=10))
def test_any_value_at_any_place(solution: Path, where: tuple[str, Place], value: Any, name: str | None) -> None:
    file, path = where
    document = json.loads((ROOT / file).read_text())
    if not path:
        document = value
    else:
        below = document
        for key in path[:-1]:
            below = below[key]
        if name is None or isinstance(below, list):
            below[path[-1]] = value
        else:
            below[name] = below.pop(path[-1])
    template = solution / file
    template.write_text(json.dumps(document, indent=1))
    findings = check_deployment(template, environment={})
    if any(finding.severity == "error" and finding.code != "undefined-variable" for finding in findings):
        with pytest.raises(ConfigurationError):
            generate(template, {})
    else:
        assert generate(template, {}).modules_content is not None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(FILES))
def test_any_character_anywhere(solution: Path, data: st.DataObject, file: str) -> None:
    text = (ROOT / file).read_text()
    at = data.draw(st.integers(0, len(text)))
    gone = data.draw(st.integers(0, 3))
    template = solution / file
    template.write_text(text[:at] + data.draw(st.text(max_size=3)) + text[at + gone :], encoding="utf-8", newline="")
    for finding in check_deployment(template, environment={}):
        assert finding.what
        assert finding.line or finding.file != str(template)
