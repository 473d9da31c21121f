"""`python -m bench [--json]`: runs every row and prints the table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from bench import (
    call_path,
    container_memory,
    developer_loop,
    device_memory,
    enclave_call,
    enclave_memory,
    enclave_start,
    evidence,
    evidence_amd,
    outbox_drain,
    sealed_results,
    simulator,
    simulator_modules,
    verifier_service,
)
from bench.row import Row

BENCHES: tuple[Callable[[], list[Row]], ...] = (
    enclave_call.rows,
    call_path.rows,
    sealed_results.rows,
    enclave_start.rows,
    developer_loop.rows,
    enclave_memory.rows,
    device_memory.rows,
    container_memory.rows,
    outbox_drain.rows,
    evidence.rows,
    evidence_amd.rows,
    simulator.rows,
    simulator_modules.rows,
    verifier_service.rows,
)


def main() -> None:
    console = Console(stderr=True)
    rows: list[Row] = []
    for bench in BENCHES:
        with console.status(f"Measuring {bench.__module__.removeprefix('bench.').replace('_', ' ')} ..."):
            rows += bench()
    if "--json" in sys.argv[1:]:
        print(json.dumps([{**asdict(row), "ratio": round(row.ratio, 3), "met": row.met} for row in rows], indent=2))
        return
    table = Table()
    for column in ("what", "against"):
        table.add_column(column)
    for column in ("ours", "reference", "ratio", "target"):
        table.add_column(column, justify="right")
    for row in rows:
        bound = f"{'>=' if row.at_least else '<='} {row.target:g}x"
        ratio = f"[{'green' if row.met else 'red'}]{row.ratio:.2f}x[/]"
        table.add_row(
            row.what, row.against, f"{row.ours:.4g} {row.unit}", f"{row.reference:.4g} {row.unit}", ratio, bound
        )
    Console().print(table)


if __name__ == "__main__":  # spawned processes import this module again
    main()
