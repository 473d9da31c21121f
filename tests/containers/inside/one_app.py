"""Runs inside ta_runner's image, by the product's own code there: a trusted application in the emulator, one call.

    python3 one_app.py PACKAGE FOLDER

Prints one JSON object: the architecture, what the runtime measures, and the reply, or the code of the refusal.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from edgeclave.errors import EdgeclaveError
from edgeclave.evidence.runtime import runtime_digest
from edgeclave.platforms.base import CallRequest, StartRequest
from edgeclave.platforms.emulator import Emulator


async def one_call(package: Path, folder: Path) -> dict[str, object]:
    emulator = Emulator(folder / "emulator", folder / "compiled")
    began = time.monotonic()
    enclave = await emulator.start(package, StartRequest(slot="one", host_time=int(time.time() * 1000)))
    started = time.monotonic() - began
    try:
        request = CallRequest(id="1", method="echo", payload='{"from": "inside"}', host_time=int(time.time() * 1000))
        outcome = await enclave.call(request)
        return {"reply": outcome.reply, "probe": emulator.probe().detail, "start_seconds": round(started, 2)}
    finally:
        await enclave.kill()


def main() -> None:
    said: dict[str, object] = {"machine": os.uname().machine, "runtime": runtime_digest().hex()}
    try:
        said |= asyncio.run(one_call(Path(sys.argv[1]), Path(sys.argv[2])))
    except EdgeclaveError as error:
        said |= {"code": error.code, "what": error.what, "where": error.where}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
