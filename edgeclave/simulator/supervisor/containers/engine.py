"""The Docker engine of this machine through the `docker` SDK, without blocking the event loop.

The SDK is synchronous. Its calls run in threads that end with this process: whoever is interrupted in a build that
takes minutes is not kept waiting for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from edgeclave.errors import ConfigurationError, EdgeclaveError

if TYPE_CHECKING:
    from docker import APIClient  # type: ignore[import-untyped]

Result = TypeVar("Result")
CALL_SECONDS = 60  # for an answer, beside builds, pulls and logs
_ADVICE = {  # what an engine says -> what a person can do
    r"invalid reference format": "check the image's name: a variable in it may not be defined",
    r"no space left on device": "free space on the engine's disk: `docker system df` shows what takes it",
    r"address pool": "remove networks that nobody uses: `docker network prune`",
    r"port is already allocated|address already in use": "stop what uses the port, or change PortBindings",
    r"is already in use by container": "remove that container, or rename it",
    r"no such device|error gathering device information": "see Devices in createOptions: this machine has none like it",
    r"permission denied": "check who may use the files that its createOptions mount",
    r"(bind source path does not exist|no such file or directory)": "check the paths that its createOptions mount",
    r"memory limit": "give it more Memory in createOptions",
    r"cannot allocate memory": "stop what needs the machine's memory",
}


class EngineError(EdgeclaveError):
    """The engine could not do something; it may the next time."""


class Engine:
    """Made by `connect`. Methods are called on the event loop."""

    def __init__(self, client: APIClient, architecture: str) -> None:
        self.client = client
        self.architecture = architecture

    @classmethod
    async def connect(cls) -> Engine:
        """Of `DOCKER_HOST`, or the usual socket.

        Raises:
            ConfigurationError: `docker-not-there`, `docker-refuses-user`, `docker-elsewhere`, `docker-unusable`.
        """
        host = os.environ.get("DOCKER_HOST", "")
        if not host.startswith("unix://") and host:
            raise ConfigurationError(
                "docker-elsewhere",
                "the modules' sockets and network are on this machine, so the engine must be too",
                where=f"DOCKER_HOST={host}",
                advice="unset DOCKER_HOST, or run without --containers",
            )
        client, version = await in_thread(_connect)
        if version.get("Os") != "linux":
            raise ConfigurationError(
                "docker-unusable",
                "the engine runs no Linux containers",
                where=str(version.get("Os")),
                advice="switch it to Linux containers",
            )
        return cls(client, version["Arch"])

    async def call(self, work: Callable[[APIClient], Result], doing: str) -> Result:
        """Runs `work` with the client in a thread.

        Args:
            doing: completes the sentence "the engine cannot ...".

        Raises:
            NoSuchThing: what was named is not there.
            EngineError: `docker-failed` with what the engine says.
        """
        return await in_thread(lambda: self._guarded(work, doing))

    def _guarded(self, work: Callable[[APIClient], Result], doing: str) -> Result:
        from docker.errors import APIError, DockerException, NotFound  # type: ignore[import-untyped]
        from requests.exceptions import RequestException

        try:
            return work(self.client)
        except NotFound as error:
            raise NoSuchThing(f"the engine cannot {doing}: {error.explanation}") from error
        except APIError as error:
            raise engine_error(doing, error.explanation or str(error)) from error
        except (DockerException, RequestException, OSError) as error:
            raise EngineError(
                "docker-failed",
                f"the engine cannot {doing}: {_cause(error) or error}",
                advice="check that the engine still runs: `docker version`",
            ) from error


class NoSuchThing(EngineError):  # noqa: N818 - what it says, not that it is wrong
    """The engine has no container, image, network or volume of that name."""

    def __init__(self, what: str) -> None:
        super().__init__("docker-no-such-thing", what)


def engine_error(doing: str, said: str) -> EngineError:
    """What an engine said, with what to do about it."""
    advice = next((advice for pattern, advice in _ADVICE.items() if re.search(pattern, said, re.IGNORECASE)), "")
    return EngineError("docker-failed", f"the engine cannot {doing}: {said.strip()[:400]}", advice=advice)


async def in_thread(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, from a thread that does not outlive this process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if future.done():  # nobody waits any more
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # raised where somebody waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, daemon=True, name="edgeclave-docker").start()
    return await future


def _connect() -> tuple[APIClient, dict[str, str]]:
    from docker import APIClient
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env  # type: ignore[import-untyped]
    from requests.exceptions import RequestException

    try:
        client = APIClient(version="auto", timeout=CALL_SECONDS, **kwargs_from_env())
        return client, client.version()
    except (DockerException, RequestException, OSError) as error:
        raise _not_connected(error) from error


def _not_connected(error: Exception) -> ConfigurationError:
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    cause = _cause(error)
    if isinstance(cause, PermissionError):
        return ConfigurationError(
            "docker-refuses-user",
            "this user may not use the Docker engine",
            where=where,
            advice="`sudo usermod -aG docker $USER` and log in again, or run without --containers",
        )
    if isinstance(cause, FileNotFoundError | ConnectionRefusedError):
        return ConfigurationError(
            "docker-not-there",
            "no Docker engine answers",
            where=where,
            advice="install Docker Engine and start it (`sudo systemctl start docker`), or run without --containers",
        )
    return ConfigurationError(
        "docker-unusable",
        f"the Docker engine cannot be used: {str(error)[:300]}",
        where=where,
        advice="`docker version` shows what is wrong, or run without --containers",
    )


def _cause(error: BaseException | None) -> OSError | None:
    """The operating system's error below those of the libraries."""
    seen: list[BaseException] = [error] if error is not None else []
    for each in seen:
        if isinstance(each, OSError) and each.errno is not None:
            return each
        inner = [each.__cause__, each.__context__, *each.args]
        seen += [one for one in inner if isinstance(one, BaseException) and one not in seen]
    return None
