"""The enclave reads ahead, while the host may still be writing the compiled code it passed."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from edgeclave.enclave import memory_files
from edgeclave.enclave.files import TRAILER_BYTES, Files
from edgeclave.errors import PackageError
from edgeclave.ta.package import encode_package

CODE = b"code" * 1000


@pytest.fixture
def package(tmp_path: Path) -> int:
    data, _ = encode_package(b"wasm", b"signature", {})
    (tmp_path / "package.ta").write_bytes(data)
    return os.open(tmp_path / "package.ta", os.O_RDONLY)


def test_code_that_is_finished_before_the_request_to_start_is_read(package: int) -> None:
    code = memory_files.create("code")
    files = Files(package, code, None)
    files.begin_reading()
    memory_files.write_all(code, CODE + bytes(TRAILER_BYTES))
    memory_files.make_unchangeable(code)
    read, found = files.read()
    assert bytes(read.wasm) == b"wasm"
    assert found is not None
    assert found.code_digest == hashlib.sha256(CODE).digest()
    files.close()


def test_code_that_can_still_be_changed_at_the_request_to_start_is_not_used(package: int) -> None:
    code = memory_files.create("code")
    memory_files.write_all(code, CODE + bytes(TRAILER_BYTES))
    files = Files(package, code, None)
    files.begin_reading()
    assert files.read()[1] is None
    files.close()


def test_the_digest_is_of_what_was_finished_however_slowly_it_came(package: int) -> None:
    code = memory_files.create("code")
    files = Files(package, code, None)
    files.begin_reading()

    def write() -> None:
        for byte in CODE[:50]:
            memory_files.write_all(code, bytes([byte]))
        memory_files.write_all(code, bytes(TRAILER_BYTES))
        memory_files.make_unchangeable(code)

    writer = threading.Thread(target=write)
    writer.start()
    writer.join()
    _, found = files.read()
    assert found is not None
    assert found.code_digest == hashlib.sha256(CODE[:50]).digest()
    files.close()


def test_a_package_that_is_none_is_reported_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "package.ta").write_bytes(b"none")
    files = Files(os.open(tmp_path / "package.ta", os.O_RDONLY), None, None)
    files.begin_reading()
    with pytest.raises(PackageError, match="plain part"):
        files.read()
    files.close()
