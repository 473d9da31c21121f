"""The audit chain: what shows, what is recovered, what it costs to rotate."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from enclave_broker.audit import CURRENT, GENESIS, AuditError, AuditLog, verify


def write(folder: Path, count: int, **limits: int) -> AuditLog:
    log = AuditLog(folder, **limits)
    for number in range(count):
        log.record("decision", identity="iothub", operation=f"invoke:anomaly/m{number}", outcome="deny")
    return log


def lines(folder: Path) -> list[bytes]:
    return (folder / CURRENT).read_bytes().splitlines()


def test_lines_are_chained_from_zeros(tmp_path: Path) -> None:
    log = write(tmp_path, 3)
    written = lines(tmp_path)
    assert [json.loads(line)["sequence"] for line in written] == [1, 2, 3]
    assert json.loads(written[0])["previous"] == GENESIS
    assert json.loads(written[1])["previous"] == hashlib.sha256(written[0]).hexdigest()
    summary = verify(tmp_path)
    assert (summary.first, summary.last, summary.digest, summary.torn_bytes) == (1, 3, log.digest, 0)


def test_a_line_is_readable_before_the_log_is_closed(tmp_path: Path) -> None:
    log = write(tmp_path, 1)
    log.record("refused", identity="unidentified", outcome="no-certificate", count=7)
    assert json.loads(lines(tmp_path)[-1]) | {"time": "", "previous": ""} == {
        "sequence": 2, "time": "", "previous": "", "event": "refused",
        "identity": "unidentified", "outcome": "no-certificate", "count": 7,
    }  # fmt: skip


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    write(tmp_path / "audit", 1)
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "audit" / CURRENT).stat().st_mode & 0o777 == 0o600


def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    write(tmp_path, 3).close()
    write(tmp_path, 2).close()
    assert verify(tmp_path).last == 5


def _edit(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    def tamper(folder: Path) -> None:
        (folder / CURRENT).write_bytes(b"".join(line + b"\n" for line in change(lines(folder))))

    return tamper


@pytest.mark.parametrize(
    ("tamper", "code", "line"),
    [
        pytest.param(
            _edit(lambda w: [*w[:2], w[2].replace(b"deny", b"allow"), *w[3:]]), "audit-broken", 4, id="changed"
        ),
        pytest.param(_edit(lambda w: [*w[:2], *w[3:]]), "audit-broken", 3, id="one line removed"),
        pytest.param(_edit(lambda w: [*w[:2], w[3], w[2], *w[4:]]), "audit-broken", 3, id="two lines swapped"),
        pytest.param(_edit(lambda w: [*w[:3], w[2], *w[3:]]), "audit-broken", 4, id="one line twice"),
        pytest.param(_edit(lambda w: [*w[:2], b"{}", *w[2:]]), "audit-malformed", 3, id="an empty object"),
        pytest.param(_edit(lambda w: [*w[:2], b"", *w[2:]]), "audit-malformed", 3, id="an empty line"),
        pytest.param(_edit(lambda w: [*w[:2], b'{"a":' * 9000, *w[2:]]), "audit-malformed", 3, id="an endless line"),
        pytest.param(
            _edit(lambda w: [w[0].replace(GENESIS.encode(), b"1" * 64), *w[1:]]), "audit-broken", 1, id="begin"
        ),
        pytest.param(_edit(lambda w: []), "audit-empty", None, id="all removed"),
    ],
)
def test_tampering_shows(tmp_path: Path, tamper: Callable[[Path], None], code: str, line: int | None) -> None:
    write(tmp_path, 5).close()
    tamper(tmp_path)
    with pytest.raises(AuditError) as caught:
        verify(tmp_path)
    assert caught.value.code == code
    if line is not None:
        assert caught.value.where == f"{tmp_path / CURRENT}:{line}"


def test_a_chain_cut_at_its_end_differs_from_what_was_reported(tmp_path: Path) -> None:
    log = write(tmp_path, 5)
    reported = (log.sequence, log.digest)
    log.close()
    _edit(lambda written: written[:3])(tmp_path)
    summary = verify(tmp_path)
    assert (summary.last, summary.digest) != reported


@pytest.mark.parametrize("torn", [1, 10, 100])
def test_a_torn_last_line_is_removed_and_said(tmp_path: Path, torn: int) -> None:
    write(tmp_path, 3).close()
    path = tmp_path / CURRENT
    whole = path.read_bytes()
    path.write_bytes(whole + lines(tmp_path)[0][:torn])
    assert verify(tmp_path).torn_bytes == torn
    AuditLog(tmp_path).close()
    assert path.read_bytes().startswith(whole)
    last = json.loads(lines(tmp_path)[-1])
    assert (last["event"], last["sequence"], last["detail"]) == (
        "recovered", 4, f"{torn} bytes of a torn last line were removed",
    )  # fmt: skip
    assert verify(tmp_path).last == 4


def test_a_first_line_torn_begins_the_chain_again(tmp_path: Path) -> None:
    (tmp_path / CURRENT).write_bytes(b'{"sequence":1,"ti')
    write(tmp_path, 1).close()
    assert verify(tmp_path).last == 2


def test_a_damaged_file_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    write(tmp_path, 3).close()
    (tmp_path / CURRENT).write_bytes(b"\0" * 5000 + b"\n")
    write(tmp_path, 1).close()
    assert json.loads(lines(tmp_path)[0])["event"] == "recovered"
    assert len(list(tmp_path.glob("damaged-*.jsonl"))) == 1
    assert verify(tmp_path).last == 2


def test_rotation_keeps_the_chain_and_bounds_the_files(tmp_path: Path) -> None:
    log = write(tmp_path, 200, max_file_bytes=2000, max_files=4)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == 4
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    summary = verify(tmp_path)
    assert summary.first > 1
    assert (summary.last, summary.digest) == (200, log.digest)
    assert int(files[0].split("-")[1].split(".")[0]) == summary.first


def test_rotation_survives_a_restart_in_the_middle(tmp_path: Path) -> None:
    write(tmp_path, 20, max_file_bytes=2000).close()
    (tmp_path / CURRENT).rename(tmp_path / "audit-999999999999.jsonl")
    log = write(tmp_path, 1)
    assert log.sequence == 21
    assert verify(tmp_path).last == 21


def test_a_removed_file_in_the_middle_shows(tmp_path: Path) -> None:
    write(tmp_path, 100, max_file_bytes=2000).close()
    sorted(tmp_path.glob("audit-*.jsonl"))[1].unlink()
    with pytest.raises(AuditError) as caught:
        verify(tmp_path)
    assert caught.value.code == "audit-broken"


def test_a_full_disk_refuses_and_leaves_no_half_line() -> None:
    """/dev/full takes nothing: the log must not go on."""
    log = AuditLog.__new__(AuditLog)
    log._folder, log._max_file_bytes, log._max_files = Path("/dev"), 1000, 2
    log.sequence, log.digest, log._size = 0, GENESIS, 0
    log._descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(AuditError) as caught:
        log.record("decision", identity="iothub")
    assert caught.value.code == "audit-unavailable"
    assert (log.sequence, log.digest) == (0, GENESIS)


def test_an_unwritable_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError) as caught:
        AuditLog(tmp_path / "file" / "audit")
    assert caught.value.code == "audit-unavailable"
