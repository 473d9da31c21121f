"""docs/verifying.md does what it says, on a real SGX quote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.console import Reader
from tests.fixtures.real_vectors import real_vector

PAGE = Path(__file__).parents[2] / "docs" / "verifying.md"


@pytest.mark.e2e
def test_every_command_of_the_page(tmp_path):
    (tmp_path / "quote.bin").write_bytes(real_vector("intel/sgx_quote"))
    (tmp_path / "collateral.json").write_bytes(real_vector("intel/sgx_quote_collateral.json"))
    with Reader(tmp_path) as reader:
        assert reader.follow(PAGE) == 12
