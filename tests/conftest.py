"""A run ends with what it left out: a missing tool is never silently green, nor an attack that nothing tried."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fixtures.attack_coverage import AttackCoverage
from tests.fixtures.container_engine import EngineOfTheRun

PAGE = Path(__file__).parents[1] / "docs" / "threat-model.md"

# Several test processes share the machine with engines and emulators: how long an example takes says nothing. A run
# says the same of the same code; new examples are searched with `pytest --hypothesis-profile=search`.
_SHARED_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", _SHARED_MACHINE)
settings.register_profile("the same again", _SHARED_MACHINE, derandomize=True)
settings.load_profile("the same again")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(AttackCoverage(PAGE), "attack-coverage")
    config.pluginmanager.register(EngineOfTheRun(), "engine-of-the-run")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.getreports("skipped")
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)  # type: ignore[index]
    if reasons:
        terminalreporter.section("left out on this machine")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:4} tests: {reason}")
