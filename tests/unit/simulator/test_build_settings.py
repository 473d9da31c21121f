"""How an image is built, from module.json as people write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeclave.errors import ConfigurationError
from edgeclave.simulator.supervisor.containers.build_settings import BuildSettings, read_build_settings

PLATFORMS = {"amd64": "./Dockerfile.amd64", "amd64.debug": "./Dockerfile.amd64.debug"}


def module(folder: Path, **image: Any) -> Path:
    source = folder / "modules/worker"
    source.mkdir(parents=True)
    for name in PLATFORMS.values():
        (source / name).touch()
    document = {"image": {"repository": "r/worker", "tag": {"version": "1-a", "platforms": PLATFORMS}, **image}}
    (source / "module.json").write_text(json.dumps(document))
    return source


def test_the_platform_is_what_the_image_ends_with(tmp_path: Path) -> None:
    source = module(tmp_path, contextPath="../..")
    assert read_build_settings("r/worker:1-a-amd64", source) == BuildSettings(
        "r/worker:1-a-amd64", source / "Dockerfile.amd64", tmp_path, {}, None
    )
    assert read_build_settings("r/worker:1-a-amd64.debug", source).dockerfile.name == "Dockerfile.amd64.debug"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--build-arg BASE=python:3", "--build-arg X=a=b", "--target run"], id="two words in an entry"),
        pytest.param(["--build-arg", "BASE=python:3", "--build-arg", "X=a=b", "--target", "run"], id="one word"),
        pytest.param(["--build-arg=BASE=python:3", "--build-arg='X=a=b'", "--target=run"], id="with = between"),
    ],
)
def test_build_options(tmp_path: Path, options: list[str]) -> None:
    settings = read_build_settings("r/worker:1-amd64", module(tmp_path, buildOptions=options))
    assert settings.arguments == {"BASE": "python:3", "X": "a=b"}
    assert settings.target == "run"


@pytest.mark.parametrize(
    ("image", "change", "what"),
    [
        pytest.param("r/worker:1-arm64v8", {}, "no platform", id="a platform that it has not"),
        pytest.param("r/worker:1-amd64", {"contextPath": "../../nowhere"}, "nowhere", id="no such context"),
        pytest.param(
            "r/worker:1-amd64", {"tag": {"platforms": {"amd64": "Dockerfile.x"}}}, "Dockerfile.x", id="no such file"
        ),
        pytest.param("r/worker:1-amd64", {"buildOptions": ["--squash"]}, "--squash", id="unknown option"),
        pytest.param("r/worker:1-amd64", {"buildOptions": ["--build-arg"]}, "--build-arg", id="option without value"),
        pytest.param("r/worker:1-amd64", {"buildOptions": ["--target 'x"]}, "quotation", id="open quotation mark"),
        pytest.param("r/worker:1-amd64", {"buildOptions": "x"}, "array", id="options as a text"),
    ],
)
def test_mistakes(tmp_path: Path, image: str, change: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as refused:
        read_build_settings(image, module(tmp_path, **change))
    assert refused.value.code == "bad-module-json"
    assert "module.json" in refused.value.where
