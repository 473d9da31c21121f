from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from edgeclave.registry import Credentials, Reference, RegistryAccess, RegistryLimits, pull_package
from tests.fixtures.stand_in_registry import StandInRegistry

Pull = Callable[..., Awaitable[bytes]]


@pytest.fixture
async def registry() -> AsyncIterator[StandInRegistry]:
    async with StandInRegistry().running() as registry:
        yield registry


@pytest.fixture
def access() -> RegistryAccess:
    """Impatient, so that a test need not wait."""
    limits = RegistryLimits(
        connect_seconds=2,
        stall_seconds=0.3,
        answer_seconds=1,
        first_wait_seconds=0.01,
        longest_wait_seconds=2,
        attempts=3,
        chunk_bytes=1 << 20,
    )
    return RegistryAccess(Credentials("edge", "s3cret"), limits=limits)


@pytest.fixture
def pull(tmp_path: Path, access: RegistryAccess) -> Pull:
    """Pulls into `tmp_path/out.ta` and returns the bytes."""

    async def pull(reference: Reference, access: RegistryAccess = access) -> bytes:
        target = tmp_path / "out.ta"
        await pull_package(reference, target, tmp_path / "partial", access)
        return target.read_bytes()

    return pull
