from __future__ import annotations

from pathlib import Path

import pytest
from enclave_broker.audit import CURRENT, AuditLog
from enclave_broker.verify_audit import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log = AuditLog(tmp_path / "audit")
    for number in range(3):
        log.record("decision", identity=f"module-{number}", outcome="allow")
    log.close()
    return tmp_path / "audit"


def test_a_whole_log(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    assert "lines 1 to 3 in 1 files" in capsys.readouterr().out


def test_a_changed_line_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = folder / CURRENT
    log.write_text(log.read_text().replace("module-0", "module-9"))
    assert main([str(folder)]) == 1
    said = capsys.readouterr().err
    assert "audit-broken" in said
    assert f"{log}:2" in said
    assert "reported properties" in said


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["nowhere"], 1, "audit-empty", id="no log"),
        pytest.param(["one", "two"], 2, "FOLDER", id="two folders"),
        pytest.param(["--help"], 2, "FOLDER", id="help"),
    ],
)
def test_other_ways_to_call_it(arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    assert says in capsys.readouterr().err
