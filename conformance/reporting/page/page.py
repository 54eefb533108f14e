"""The page: level, environment, first divergence with its diagnosis, heat maps, and every failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from conformance.judging.levels import LEVELS, Tally, badge, badge_text
from conformance.known_failures import counts_as
from conformance.reporting.html import render_page
from conformance.reporting.jsonl import CaseLine, RunLine, read
from conformance.reporting.page.changes import Change, changes
from conformance.reporting.page.heat_map import draw, heat_maps
from conformance.reporting.page.positions import draw_positions
from conformance.reporting.reproduce import rerun_command
from gemma4_contract import Fixtures
from gemma4_contract.files import write_atomic
from gemma4_contract.models import Level

PAGE = "report.html"
_LISTED = 200


def write_page(fixtures: Fixtures, directory: Path, diagnosis: str, earlier: Path | None = None) -> Path:
    """Write `report.html` beside a report; `diagnosis` is the text of `diagnose`, "" if nothing failed.

    `earlier` is the folder of another report to compare with. FixtureError when a report is missing or broken.
    """
    run, lines = read(directory)
    changed = None if earlier is None else changes(read(earlier)[1], lines)
    path = directory / PAGE
    write_atomic(path, render(fixtures, directory, run, list(lines.values()), diagnosis, changed).encode())
    return path


def render(
    fixtures: Fixtures,
    directory: Path,
    run: RunLine,
    lines: Sequence[CaseLine],
    diagnosis: str,
    changed: Sequence[Change] | None = None,
) -> str:
    """The page's HTML."""
    failed = [line for line in lines if counts_as(line.outcome, line.expected) == "fail"]
    tallies = tally(lines)
    maps = heat_maps(lines)
    divergent = [line for line in failed if line.first_divergence]
    first = min(divergent, key=lambda line: line.kind != "forward", default=None)
    return render_page(
        "report.html.j2",
        run=run,
        badge=badge_text(badge(tallies, full_size=run.full_size is not None), lines),
        levels=[(level, LEVELS[level], tallies[level]) for level in LEVELS if level in tallies],
        diagnosis=diagnosis,
        positions=draw_positions(fixtures, directory, first) if first else "",
        first=first,
        maps=[(heat_map.model, draw(heat_map)) for heat_map in maps],
        failed=failed[:_LISTED],
        more=max(0, len(failed) - _LISTED),
        again={line.case: rerun_command(fixtures, run.impl, run.profile, line.case) for line in failed[:_LISTED]},
        changed=changed,
        undecided=[line for line in lines if line.outcome in ("undecidable", "advice")],
    )


def tally(lines: Sequence[CaseLine]) -> Mapping[Level, Tally]:
    """The outcomes of the cases of each level."""
    tallies: dict[Level, Tally] = {}
    for line in lines:
        tallies.setdefault(line.level, Tally()).add(counts_as(line.outcome, line.expected))
    return tallies
