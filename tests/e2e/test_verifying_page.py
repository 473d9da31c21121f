"""docs/verifying.md does what it says: on a real SGX quote, on results from a hub, with a timestamp authority."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.fixtures.console import Reader
from tests.fixtures.real_vectors import real_vector
from tests.fixtures.timestamp_authority import TimestampAuthority
from tests.fixtures.vendor_service import vendor_stand_in

from ..integration.amqp.conftest import Authority, SqliteLog, running
from ..integration.cloud.test_cloud_consume import Setup, store
from ..unit.cloud.conftest import Instance, World

PAGE = Path(__file__).parents[2] / "docs" / "verifying.md"


@pytest.mark.e2e
async def test_every_command_of_the_page(tmp_path):
    (tmp_path / "quote.bin").write_bytes(real_vector("intel/sgx_quote"))
    (tmp_path / "collateral.json").write_bytes(real_vector("intel/sgx_quote_collateral.json"))
    setup = Setup(tmp_path, World(), Authority.create(tmp_path))
    (tmp_path / "policy.toml").rename(tmp_path / "results.toml")  # the page writes the other
    shutil.copy(setup.authority.certificate, tmp_path / "hub-ca.pem")
    instance = Instance(setup.world)
    evidence, opened, result = *instance.begin(), instance.result({"n": 1})
    (tmp_path / "evidence.cbor").write_bytes(evidence.body)
    (tmp_path / "result.cose").write_bytes(result.body)
    log = SqliteLog(tmp_path / "log.sqlite")
    store(log, [evidence, opened, result, instance.result({"n": 2})])
    timestamps = TimestampAuthority(tmp_path / "tsa")
    shutil.copy(timestamps.root, tmp_path / "tsa-root.pem")
    (tmp_path / "service").mkdir()
    with vendor_stand_in(tmp_path / "service") as service:
        service.documents["/"] = timestamps.serve
        environment = {"TSA": service.url, "SSL_CERT_FILE": str(service.ca)}
        with Reader(tmp_path, environment) as reader:
            async with running(log, setup.authority):
                assert await asyncio.to_thread(reader.follow, PAGE) == 17
