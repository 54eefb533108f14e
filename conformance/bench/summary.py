"""The tables at the end of a benchmark run: times with ratios, memory, and the environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

MEMORY = {
    "active_bytes": "MLX, after load",
    "load_peak_bytes": "MLX, peak of load",
    "prefill_peak_bytes": "MLX, peak of a prefill of 512",
    "decode_peak_bytes": "MLX, peak of decoding",
    "kv_bytes": "keys and values of 520 tokens",
    "process_anonymous_bytes": "process, its own, after load",
    "process_mapped_bytes": "process, pages of files, after load",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One benchmark of one contender. `ratio` is mlx-lm's time over this one, the median over the turns."""

    group: str
    name: str
    median_s: float
    p95_s: float | None
    ratio: float | None
    facts: dict[str, Any]


ROWS = pytest.StashKey[list[Row]]()


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the tables and the environment."""
    names = list(dict.fromkeys(row.name for row in rows))
    times = Table("median (p95), and times as fast as mlx-lm", *names)
    for group in dict.fromkeys(row.group for row in rows):
        of_group = {row.name: _time(row) for row in rows if row.group == group}
        times.add_row(group, *(of_group.get(name, "") for name in names))
    console.print(times)
    held = {row.name: row.facts for row in rows if "active_bytes" in row.facts}
    if held:
        memory = Table("memory in MB", *held)
        for key, label in MEMORY.items():
            memory.add_row(label, *(f"{facts[key] / 1e6:,.1f}" for facts in held.values()))
        console.print(memory)
    for row in {row.name: row for row in rows}.values():
        console.print(f"{row.name}: {row.facts['conformance']}", highlight=False)
    facts = rows[0].facts
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    console.print(
        f"{facts['model']}, {facts['dtype']}, on the {facts['device']} of {facts['chip']}, "
        f"power: {facts['power']}; {versions}",
        highlight=False,
    )


def _time(row: Row) -> str:
    digits = 1 if row.median_s < 1 else 0
    text = f"{1e3 * row.median_s:,.{digits}f} ms"
    if row.p95_s is not None:
        text += f" ({1e3 * row.p95_s:,.{digits}f})"
    return text if row.ratio is None else f"{text}, {row.ratio:.2f} x"
