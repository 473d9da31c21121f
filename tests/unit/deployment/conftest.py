"""The project's own templates in a solution whose variables are all defined."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VARIABLES = {
    "CONTAINER_REGISTRY_SERVER": "registry.example:5000",
    "ANOMALY_PACKAGE": "/packages/anomaly.ta",
    "ANOMALY_DIGEST": "sha256:" + "1f" * 32,
    "ANOMALY_SIGNER": "2e" * 32,
    "ANOMALY_RECIPIENTS_ANOMALIES": "aGVsbG8",
    "ANOMALY_RECIPIENTS_SUMMARY": "aGVsbG8",
    "SECOND_PACKAGE": "/packages/second.ta",
    "SECOND_DIGEST": "sha256:" + "3d" * 32,
    "SECOND_SIGNER": "2e" * 32,
}


@pytest.fixture
def solution(tmp_path: Path) -> Path:
    """A copy of the templates beside the real modules, with a `.env`."""
    (tmp_path / "modules").symlink_to(ROOT / "modules")
    (tmp_path / "deployments").mkdir()
    for template in [*ROOT.glob("deployment*.template.json"), *ROOT.glob("deployments/*.template.json")]:
        (tmp_path / template.relative_to(ROOT)).write_text(template.read_text())
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in VARIABLES.items()))
    return tmp_path
