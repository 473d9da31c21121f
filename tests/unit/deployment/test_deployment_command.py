"""`edgeclave deployment check` as a person and a script use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeclave.cli.main import run


def test_exit_codes(solution: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(solution)
    assert run(["deployment", "check"]) == 0
    shown = capsys.readouterr().out
    assert "deployment.debug.template.json" in shown
    assert "deployments/tee-sgx.template.json" in shown
    assert "0 mistakes, 0 warnings" in shown
    assert run(["deployment", "check", "none.json"]) == 2
    assert "no-such-template" in capsys.readouterr().err


def test_a_mistake_is_shown_with_file_line_and_advice(
    solution: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(solution)
    path = Path("deployment.template.json")
    text = path.read_text().replace('"startupOrder": 3', '"startupOrder": "3"').replace("INTO $up", "INTO $op")
    path.write_text(text)
    line = text[: text.index('"startupOrder": "3"')].count("\n") + 1
    assert run(["deployment", "check", str(path)]) == 1
    shown = capsys.readouterr().out
    assert f"deployment.template.json:{line}: error [bad-deployment]: must be a whole number, not a text" in shown
    assert "  where: modulesContent.$edgeAgent.properties.desired.modules.sample_analytics.startupOrder" in shown
    assert "  do:    write the number without quotes" in shown
    assert "3 mistakes, 0 warnings" in shown
    assert run(["deployment", "check", str(path), "--json"]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["files"], summary["errors"], summary["warnings"]) == ([str(path)], 3, 0)
    assert summary["findings"][0] | {"what": ""} == {
        "severity": "error",
        "code": "bad-deployment",
        "what": "",
        "file": str(path),
        "line": line,
        "path": "modulesContent.$edgeAgent.properties.desired.modules.sample_analytics.startupOrder",
        "advice": "write the number without quotes",
    }


def test_warnings_are_no_mistakes(solution: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = solution / "deployment.template.json"
    path.write_text(path.read_text().replace("modules/sample_analytics/outputs", "modules/other/outputs"))
    assert run(["deployment", "check", str(path)]) == 0
    assert "0 mistakes, 1 warning" in capsys.readouterr().out
