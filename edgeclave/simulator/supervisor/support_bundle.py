"""What edgeAgent gathers for someone who helps from afar: logs, reported states, versions. No settings of modules."""

from __future__ import annotations

import io
import json
import platform
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any


def support_bundle(logs: Mapping[str, str], reported: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A zip with `logs/NAME.log`, `reported/NAME.json` and `about.json`."""
    about = {"edgeclave": version("edgeclave"), "python": platform.python_version(), "platform": platform.platform()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("about.json", json.dumps(about, indent=2))
        for name, report in reported.items():
            archive.writestr(f"reported/{name}.json", json.dumps(_without_environment(report), indent=2))
        for name, text in logs.items():
            archive.writestr(f"logs/{name}.log", text)
    return packed.getvalue()


def _without_environment(report: Mapping[str, Any]) -> dict[str, Any]:
    """Environments may hold passwords."""
    return {
        key: _without_environment(value) if isinstance(value, Mapping) else value
        for key, value in report.items()
        if key != "env"
    }
