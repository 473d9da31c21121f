"""A simulated device in processes of its own, so that nothing of it runs in the process that measures."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@asynccontextmanager
async def process(*arguments: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[None]:
    """`python -m ARGUMENTS` until the end of the block."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        if running.returncode is None:
            running.terminate()
        await running.wait()


@asynccontextmanager
async def simulated(
    folder: Path, modules: Mapping[str, dict[str, Any]], *, images: Mapping[str, str] | None = None
) -> AsyncIterator[Path]:
    """The state directory of a simulator that runs these modules of the project with these desired properties.

    `images`: to run them as containers of these, instead of as processes.
    """
    template = json.loads((ROOT / "deployment.template.json").read_text())
    content = template["modulesContent"]
    agent = content["$edgeAgent"]["properties.desired"]
    for name in tuple(agent["modules"]):
        content.pop(name, None)
        if name in modules:
            content[name] = {"properties.desired": modules[name]}
        else:
            del agent["modules"][name]
    for name, image in (images or {}).items():
        agent["modules"][name]["settings"]["image"] = image
    content["$edgeHub"]["properties.desired"]["routes"] = {"all": "FROM /messages/* INTO $upstream"}
    path = folder / "deployment.template.json"
    path.write_text(json.dumps(template))
    if not (folder / "modules").exists():
        (folder / "modules").symlink_to(ROOT / "modules")  # `${MODULES.x}` is found next to the template
    how = ["--containers"] if images else []
    async with process("edgeclave", "sim", "up", str(path), "--state", str(folder / "state"), *how):
        yield folder / "state"
