"""What lies in a project's folder, or where something is to be written, and is no ordinary file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeclave.develop.project import Project
from edgeclave.errors import ConfigurationError
from edgeclave.ta.build import build_wasm
from edgeclave.ta.build.output import write_built


@pytest.fixture(params=["app.c", "app.py"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    (tmp_path / "ta.toml").write_text('name = "meter"')
    (tmp_path / request.param).touch()
    return tmp_path


@pytest.mark.parametrize("name", ["pipe.h", "pipe.py", "data"])
def test_a_pipe_among_the_sources_does_not_keep_anyone_waiting(project: Path, name: str) -> None:
    os.mkfifo(project / name)
    with pytest.raises(ConfigurationError, match="it is not a file") as refused:
        Project.at(project).build(print)
    assert (refused.value.code, refused.value.where) == ("source-unreadable", str(project / name))


@pytest.mark.parametrize("odd", ["a pipe", "a link that leads nowhere"])
def test_sources_that_cannot_be_collected_are_named(tmp_path: Path, odd: str) -> None:
    (tmp_path / "app.py").touch()
    os.mkfifo(tmp_path / "odd") if odd == "a pipe" else (tmp_path / "odd").symlink_to("nowhere")
    with pytest.raises(ConfigurationError) as refused:
        build_wasm(tmp_path, tmp_path / "out.wasm")
    assert (refused.value.code, refused.value.where) == ("source-unreadable", str(tmp_path / "odd"))


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"code")
    os.mkfifo(tmp_path / "out")  # as a device would be, /dev/null say
    with pytest.raises(ConfigurationError, match="it is not a file"):
        write_built(tmp_path / "made", tmp_path / "out")
    assert (tmp_path / "out").is_fifo()
    write_built(tmp_path / "made", tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == b"code"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "new", "out"]
