"""Images: `${MODULES.x}` is built from its module, any other is pulled if the engine does not have it."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeclave.errors import ConfigurationError
from edgeclave.simulator.supervisor.containers.build_settings import BuildSettings, read_build_settings
from edgeclave.simulator.supervisor.containers.engine import Engine, EngineError, NoSuchThing, engine_error
from edgeclave.simulator.supervisor.specification import ModuleSpecification, Registry

if TYPE_CHECKING:
    from docker import APIClient  # type: ignore[import-untyped]

Progress = Callable[[str, str], None]
"""Told (module id, what is being done)."""
Say = Callable[[str], None]
REPORT_SECONDS = 2.0  # what is over sooner is not worth a line
OUTPUT_LINES = 30  # of a failed build
_STEP = re.compile(r"Step (?P<number>\d+)/(?P<count>\d+) : (?P<instruction>.*)")
_PULL_ADVICE = {
    r"unauthorized|denied|no basic auth|authentication required": (
        "check its name; a private registry needs registryCredentials in the deployment, or `docker login`"
    ),
    r"no matching manifest": "the registry has it for other architectures only: build one for this machine",
    r"manifest unknown|not found": "check the image's name and tag",
    r"http: server gave HTTP response|certificate|x509": "make the engine trust the registry's certificate",
    r"no such host|connection refused|timeout|deadline|network is unreachable|no route|EOF": (
        "check the registry's address and this machine's network"
    ),
}


class Images:
    """What the engine has, or can get.

    Args:
        folders: image -> source folder of the module that it is built from.
    """

    def __init__(self, engine: Engine, folders: Mapping[str, Path], progress: Progress) -> None:
        self._engine = engine
        self._folders = folders
        self._progress = progress
        self._built: set[str] = set()

    async def ensure(self, specification: ModuleSpecification, log_file: Path) -> str:
        """Returns the image's architecture when the engine has it. Output of a build that fails goes to the log.

        Raises:
            ConfigurationError: `image-not-built`, `image-not-there`, `bad-module-json`.
            EngineError: `image-not-pulled`, `docker-failed`.
        """
        image, folder = specification.image, self._folders.get(specification.image)
        if folder is not None and image not in self._built:
            await self._build(specification.module_id, read_build_settings(image, folder), log_file)
            self._built.add(image)
        try:
            return await self._architecture(image)
        except NoSuchThing as error:
            if specification.image_pull_policy == "never":
                raise ConfigurationError(
                    "image-not-there",
                    f"the engine has no image {image}, and imagePullPolicy is never",
                    advice="load it into the engine, or let it be pulled (on-create)",
                ) from error
        await self._pull(specification.module_id, image, specification.registry)
        return await self._architecture(image)

    async def _architecture(self, image: str) -> str:
        return str(
            (await self._engine.call(lambda client: client.inspect_image(image), f"look for {image}"))["Architecture"]
        )

    async def _build(self, module_id: str, settings: BuildSettings, log_file: Path) -> None:
        output: deque[str] = deque(maxlen=OUTPUT_LINES)
        doing = f"build {settings.image}"
        failure = await self._watched(
            module_id,
            f"building {settings.image}",
            lambda say: self._engine.call(lambda client: _follow_build(client, settings, output, say), doing),
        )
        if failure is None:
            return
        with log_file.open("a", encoding="utf-8") as log:
            log.writelines(f"build: {line}\n" for line in output)
        advice = engine_error("", failure).advice or f"`edgeclave sim logs {module_id}` has the end of its output"
        if "BuildKit" in failure:
            advice = "the engine's own builder is used here: write the Dockerfile without --mount, --link and heredocs"
        elif re.search(r"pull access denied|manifest|no such host|registry|dial tcp", failure):
            advice = (
                'check its FROM; another base is chosen by "buildOptions": ["--build-arg", "BASE=..."] in module.json'
            )
        raise ConfigurationError(
            "image-not-built",
            f"{settings.image} cannot be built: {failure}",
            where=str(settings.dockerfile),
            advice=advice,
        )

    async def _pull(self, module_id: str, image: str, registry: Registry | None) -> None:
        credentials = {"username": registry.username, "password": registry.password} if registry else None
        try:
            failure = await self._watched(
                module_id,
                f"pulling {image}",
                lambda say: self._engine.call(
                    lambda client: _follow_pull(client, image, credentials, say), f"pull {image}"
                ),
            )
        except EngineError as error:
            failure = error.what
        if failure is not None:
            found = (advice for pattern, advice in _PULL_ADVICE.items() if re.search(pattern, failure, re.IGNORECASE))
            advice = engine_error("", failure).advice or next(found, "")
            raise EngineError("image-not-pulled", f"{image} cannot be pulled: {failure[:400]}", advice=advice)

    async def _watched(
        self, module_id: str, what: str, work: Callable[[Say], Coroutine[Any, Any, str | None]]
    ) -> str | None:
        """What `work` returns; meanwhile what it says last is shown from time to time."""
        self._progress(module_id, what)
        said = shown = ""

        def say(text: str) -> None:
            nonlocal said
            said = text

        task = asyncio.ensure_future(work(say))
        try:
            while not (await asyncio.wait([task], timeout=REPORT_SECONDS))[0]:
                if said != shown:
                    shown = said
                    self._progress(module_id, f"{what}, {said}")
            return task.result()
        finally:
            task.cancel()


def _follow_build(client: APIClient, settings: BuildSettings, output: deque[str], say: Say) -> str | None:
    """Runs in a thread; what failed, or None."""
    for said in client.build(
        path=str(settings.context),
        dockerfile=str(settings.dockerfile),
        tag=settings.image,
        buildargs=dict(settings.arguments),
        target=settings.target,
        rm=True,
        forcerm=True,
        decode=True,
        use_config_proxy=True,
    ):
        if "error" in said:
            return str(said["error"]).strip()[:400]
        for line in str(said.get("stream", "")).splitlines():
            if line.strip():
                output.append(line.rstrip())
            if match := _STEP.fullmatch(line.strip()):
                say(f"step {match['number']} of {match['count']}: {match['instruction'][:80]}")
    return None


def _follow_pull(client: APIClient, image: str, credentials: dict[str, str] | None, say: Say) -> str | None:
    """Runs in a thread; what failed, or None."""
    from docker.utils import parse_repository_tag  # type: ignore[import-untyped]

    repository, tag = parse_repository_tag(image)
    layers: dict[str, tuple[int, int]] = {}
    for said in client.pull(repository, tag=tag or "latest", stream=True, decode=True, auth_config=credentials):
        if "error" in said:
            return str(said["error"])
        detail = said.get("progressDetail") or {}
        if said.get("status") == "Downloading" and detail.get("total"):
            layers[said["id"]] = detail["current"], detail["total"]
            done, total = (sum(numbers) >> 20 for numbers in zip(*layers.values(), strict=True))
            say(f"{done} of {total} MiB")
    return None
