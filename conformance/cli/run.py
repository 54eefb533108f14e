"""`gemma4-conformance run`: judge an implementation, level by level."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from conformance import report as report_file
from conformance.adapters.base import ONE_SHOT, PORT
from conformance.adapters.process import TIMEOUT
from conformance.adapters.registry import BadOption
from conformance.cli.app import CONFORMS, DIFFERS, FixturesDir, Json, app, complain, out, progress_bar
from conformance.cli.report import write_report_page
from conformance.examine import CaseVerdict
from conformance.known_failures import KnownFailures
from conformance.levels import LEVELS, Level, Tally, badge, level_of
from conformance.prompts.judge import PromptVerdict
from conformance.session import Session
from reference.format.models import Profile

_SHOWN = 3


@app.command()
def run(
    port: Annotated[
        str | None, typer.Option(help="Command that starts an adapter in any language.", metavar="COMMAND")
    ] = None,
    once: Annotated[
        str | None, typer.Option(help="Or one that is started for every case anew.", metavar="COMMAND")
    ] = None,
    impl: Annotated[str, typer.Option(help="Or one of Python: a name, or package.module:Class.")] = "mlx_impl",
    profile: Annotated[Profile, typer.Option(help="The arithmetic it claims.")] = "f32",
    cases: Annotated[str, typer.Option(help="Judge only the cases whose id matches.", metavar="GLOB")] = "*",
    levels: Annotated[str, typer.Option(help="Levels to judge, such as L0,L1 or L0-L2.")] = "L0-L4",
    timeout: Annotated[float, typer.Option(help="Seconds that a port may take for an answer.", min=0.1)] = TIMEOUT,
    report: Annotated[
        Path | None, typer.Option(help="Folder for report.jsonl, report.html and failed answers.")
    ] = None,
    known_failures: Annotated[
        Path | None, typer.Option(help="Strict list of explained failures (default: the shipped one).", metavar="FILE")
    ] = None,
    write_known_failures: Annotated[
        Path | None, typer.Option(help="Write what failed as such a list, to be explained.", metavar="FILE")
    ] = None,
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """Judge an implementation, level by level; each level counts only with all below it.

    Interrupted, it leaves what it saw in the report.
    """
    wanted = _levels(levels)
    if port is not None and once is not None:
        raise BadOption("--once: got --port with it, expected one of them")
    name = f"{PORT}{port}" if port is not None else f"{ONE_SHOT}{once}" if once is not None else impl
    session = Session(
        name, profile, pattern=cases, report=report, root=fixtures_dir, known=known_failures, timeout=timeout
    )
    asked = sorted((case_id for case_id in session.asked if level_of(case_id) in wanted), key=level_of)
    if not asked:
        raise BadOption(f"--levels: got {levels}, expected levels of which --cases leaves something in")
    session.start_report()
    tallies: dict[Level, Tally] = {}
    failures: list[str] = []
    seen: list[tuple[str, bool, str]] = []
    with progress_bar(quiet=as_json) as progress:
        for done, case_id in enumerate(asked):
            progress(done, len(asked), case_id)
            verdict = session.judged(case_id)
            if session.report is not None:
                report_file.append(session.report, session.line(case_id, verdict))
            settled = session.settled(case_id, verdict)
            tallies.setdefault(level_of(case_id), Tally()).add(settled.outcome)
            if settled.outcome == "fail":
                failures.append(settled.text)
            if verdict.outcome in ("fail", "error"):
                seen.append((case_id, verdict.outcome == "error", _what_was_seen(verdict)))
    if write_known_failures is not None:
        count = KnownFailures.write(write_known_failures, profile, seen)
        complain(f"{count} failures written to {write_known_failures}: say of each why it is")
    reached = badge(tallies) if cases == "*" else None
    if as_json:
        counts = {level: tally.counts for level, tally in tallies.items()}
        typer.echo(json.dumps({"implementation": session.hello.name, "level": reached, "levels": counts}, indent=1))
    else:
        _tell(session, tallies, failures)
        out.print(
            f"level: {reached or 'none'}" if cases == "*" else "level: asked with all cases only", highlight=False
        )
        if failures and session.report is not None:
            complain(f"what is wrong, and where: gemma4-conformance diagnose {session.report}")
    if session.report is not None:
        page = write_report_page(session.fixtures, session.report)
        if not as_json:
            out.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    passed = any(tally.count("pass") for tally in tallies.values())
    if not passed and not failures:
        complain("every case was skipped: nothing was shown to conform")
    raise typer.Exit(CONFORMS if passed and not failures else DIFFERS)


def _what_was_seen(verdict: CaseVerdict | PromptVerdict) -> str:
    first = verdict.first_divergence if isinstance(verdict, CaseVerdict) else None
    return f"{first.name}: {first.fault}" if first else verdict.note


def _levels(text: str) -> set[Level]:
    """`L0,L2` or `L0-L2` as levels."""
    names = list(LEVELS)
    wanted: set[Level] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if first not in LEVELS or last not in LEVELS:
            raise BadOption(f"--levels: got {text!r}, expected some of {', '.join(names)}, such as L0,L1 or L0-L2")
        wanted.update(names[names.index(first) : names.index(last) + 1])  # type: ignore[arg-type]
    return wanted


def _tell(session: Session, tallies: dict[Level, Tally], failures: list[str]) -> None:
    for text in failures[:_SHOWN]:
        out.print(f"{text}\n", markup=False, highlight=False, soft_wrap=True)
    if len(failures) > _SHOWN:
        out.print(f"... and {len(failures) - _SHOWN} failures more\n", highlight=False)
    who = f"{session.hello.name} {session.hello.version}"
    table = Table(title=f"{who}, profile {session.profile}", title_justify="left")
    table.add_column("level")
    for heading in ("passed", "failed", "known", "skipped"):
        table.add_column(heading, justify="right")
    for level, tally in sorted(tallies.items()):
        figures = [str(tally.count(outcome)) for outcome in ("pass", "fail", "known", "skip")]
        table.add_row(f"{level} {LEVELS[level]}", *figures)
    out.print(table)
