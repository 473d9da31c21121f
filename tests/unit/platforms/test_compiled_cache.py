from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeclave.enclave import memory_files
from edgeclave.platforms.compiled_cache import MAX_FILES, CompiledCodeCache


def package(folder: Path, content: bytes) -> Path:
    path = folder / "package.ta"
    path.write_bytes(content)
    return path


def fill(cache: CompiledCodeCache, path: Path, content: bytes) -> None:
    """What an enclave does that had to compile."""
    slot = cache.open(path)
    os.write(slot.fresh, content)
    memory_files.make_unchangeable(slot.fresh)
    slot.keep()
    slot.close()


def memory_files_open() -> int:
    entries = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return len([entry for entry in entries if "memfd:compiled-code" in str(entry.readlink())])


def test_what_was_kept_is_offered_again_and_cannot_be_changed(tmp_path: Path) -> None:
    cache = CompiledCodeCache(tmp_path / "cache")
    path = package(tmp_path, b"one")
    missed = cache.open(path)
    assert missed.cached is None
    missed.close()
    fill(cache, path, b"compiled")
    found = cache.open(path)
    assert found.cached is not None
    assert not memory_files.is_unchangeable(found.cached), "nothing is read yet, so that an enclave can start meanwhile"
    found.fill()
    assert os.pread(found.cached, 100, 0) == b"compiled"
    with pytest.raises(PermissionError):
        os.pwrite(found.cached, b"x", 0)
    found.close()
    assert [entry.read_bytes() for entry in (tmp_path / "cache").iterdir()] == [b"compiled"]
    assert memory_files_open() == 0


def test_what_could_still_be_changed_is_not_kept(tmp_path: Path) -> None:
    cache = CompiledCodeCache(tmp_path / "cache")
    slot = cache.open(package(tmp_path, b"one"))
    os.write(slot.fresh, b"compiled")
    slot.keep()
    slot.close()
    assert list((tmp_path / "cache").iterdir()) == []


def test_code_in_use_is_in_memory_once_however_many_ask_at_the_same_time(tmp_path: Path) -> None:
    cache = CompiledCodeCache(tmp_path / "cache")
    path = package(tmp_path, b"one")
    fill(cache, path, b"compiled")
    with ThreadPoolExecutor(4) as threads:
        slots = list(threads.map(lambda _: cache.open(path), range(8)))
        list(threads.map(lambda slot: slot.fill(), slots))
    assert len({slot.cached for slot in slots}) == 1
    assert slots[0].cached is not None
    assert os.pread(slots[0].cached, 100, 0) == b"compiled"
    let_go = slots[0].hold()
    for slot in slots:
        slot.close()
    assert memory_files_open() == 1, "a running instance holds it"
    let_go()
    assert memory_files_open() == 0


def test_code_that_cannot_be_read_is_offered_to_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CompiledCodeCache(tmp_path / "cache")
    path = package(tmp_path, b"one")
    fill(cache, path, b"compiled")
    first, waiting = cache.open(path), cache.open(path)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "the disk is broken")

    with monkeypatch.context() as broken:
        broken.setattr(memory_files, "copy", fail)
        with pytest.raises(OSError, match="broken"):
            first.fill()
    waiting.fill()
    assert waiting.cached is not None
    assert not memory_files.is_unchangeable(waiting.cached), "its enclave will refuse it and compile"
    again = cache.open(path)
    again.fill()
    assert again.cached is not None
    assert os.pread(again.cached, 100, 0) == b"compiled"
    for slot in (first, waiting, again):
        slot.close()
    assert memory_files_open() == 0


def test_code_that_is_replaced_stays_with_those_that_run_it(tmp_path: Path) -> None:
    cache = CompiledCodeCache(tmp_path / "cache")
    path = package(tmp_path, b"one")
    fill(cache, path, b"old")
    running = cache.open(path)
    running.fill()
    let_go = running.hold()
    old = running.cached
    assert old is not None
    running.close()
    fill(cache, path, b"new")
    assert os.pread(old, 10, 0) == b"old"
    let_go()
    newer = cache.open(path)
    newer.fill()
    assert newer.cached is not None
    assert os.pread(newer.cached, 10, 0) == b"new"
    newer.close()


def test_the_least_recently_used_go(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cache = CompiledCodeCache(folder)
    fill(cache, package(tmp_path, b"first"), b"x")
    (first,) = folder.iterdir()
    fill(cache, package(tmp_path, b"second"), b"x")
    (second,) = set(folder.iterdir()) - {first}
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    cache.open(package(tmp_path, b"first")).close()
    for number in range(MAX_FILES - 1):
        fill(cache, package(tmp_path, b"%d" % number), b"x")
    assert first.exists()
    assert not second.exists()
    assert len(list(folder.iterdir())) == MAX_FILES


def test_a_missing_package_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CompiledCodeCache(tmp_path / "cache").open(tmp_path / "nowhere.ta")
    assert list((tmp_path / "cache").iterdir()) == []
