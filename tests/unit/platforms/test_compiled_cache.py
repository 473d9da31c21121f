from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeclave.platforms.compiled_cache import MAX_FILES, CompiledCodeCache


def package(folder: Path, content: bytes) -> Path:
    path = folder / "package.ta"
    path.write_bytes(content)
    return path


def fill(cache: CompiledCodeCache, path: Path, content: bytes) -> Path:
    slot = cache.open(path)
    os.write(slot.fresh, content)
    slot.keep()
    slot.close()
    return slot.path


def test_what_was_kept_is_offered_again(tmp_path: Path) -> None:
    cache = CompiledCodeCache(tmp_path / "cache")
    path = package(tmp_path, b"one")
    missed = cache.open(path)
    assert missed.cached is None
    missed.close()
    missed.discard()
    fill(cache, path, b"compiled")
    found = cache.open(path)
    assert found.cached is not None
    assert os.pread(found.cached, 100, 0) == b"compiled"
    found.close()
    found.discard()
    assert [entry.read_bytes() for entry in (tmp_path / "cache").iterdir()] == [b"compiled"]


def test_the_least_recently_used_go(tmp_path: Path) -> None:
    cache = CompiledCodeCache(tmp_path / "cache")
    first = fill(cache, package(tmp_path, b"first"), b"x")
    second = fill(cache, package(tmp_path, b"second"), b"x")
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    used = cache.open(package(tmp_path, b"first"))
    used.close()
    used.discard()
    for number in range(MAX_FILES - 1):
        fill(cache, package(tmp_path, b"%d" % number), b"x")
    assert first.exists()
    assert not second.exists()
    assert len(list((tmp_path / "cache").iterdir())) == MAX_FILES


def test_a_missing_package_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CompiledCodeCache(tmp_path / "cache").open(tmp_path / "nowhere.ta")
    assert list((tmp_path / "cache").iterdir()) == []
