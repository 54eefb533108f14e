"""`gemma4-conformance run`: judge an implementation, level by level."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from conformance.adapters.base import DUMP, ONE_SHOT, PORT
from conformance.adapters.external.limits import TIMEOUT, Limits
from conformance.adapters.registry import BadOption
from conformance.cli.app import (
    CONFORMS,
    DIFFERS,
    INTERRUPTED,
    FixturesDir,
    Json,
    app,
    complain,
    out,
    profile_option,
    progress_bar,
)
from conformance.cli.full_size import Checkpoint, Goldens, goldens_opener, shipped_goldens
from conformance.cli.report import write_report_page
from conformance.judging.levels import FULL_SIZE, LEVELS, Tally, badge, badge_text, models_of
from conformance.known_failures import KnownFailures
from conformance.reporting import jsonl as report_file
from conformance.run.jobs import judge_each
from conformance.run.junit import write_junit
from conformance.run.session import Judged, Session
from gemma4_contract.models import Level

_SHOWN = 3


@app.command()
def run(
    port: Annotated[
        str | None, typer.Option(help="Command that starts an adapter in any language.", metavar="COMMAND")
    ] = None,
    once: Annotated[
        str | None, typer.Option(help="Or one that is started for every case anew.", metavar="COMMAND")
    ] = None,
    dump: Annotated[
        Path | None, typer.Option(help="Or a file of answers, its tensors named CASE/TAP.", metavar="FILE.safetensors")
    ] = None,
    impl: Annotated[str, typer.Option(help="Or one of Python: a name, module:Class, or mutant:ID.")] = "mlx_impl",
    profile: Annotated[str, profile_option("The arithmetic it claims")] = "f32",
    cases: Annotated[
        list[str] | None,
        typer.Option(help="Judge only the cases whose id matches; may be given several times.", metavar="GLOB"),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(
            help="Levels to judge, such as L0,L1 or L0-L2 (default: L0-L4); L5 stands alone.", metavar="LEVELS"
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    goldens: Goldens = None,
    jobs: Annotated[int, typer.Option(help="Processes that judge, each with a port of its own.", min=1)] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds that a port may take for an answer.", min=0.1)] = TIMEOUT,
    memory_limit: Annotated[
        float | None,
        typer.Option(help="Memory that a port may hold (default: 80 % of the machine's).", metavar="GIB", min=0.05),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for report.jsonl, report.html and failed answers.")
    ] = None,
    known_failures: Annotated[
        Path | None, typer.Option(help="Strict list of explained failures (default: the shipped one).", metavar="FILE")
    ] = None,
    write_known_failures: Annotated[
        Path | None, typer.Option(help="Write what failed as such a list, to be explained.", metavar="FILE")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the run as JUnit XML.", metavar="FILE")] = None,
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """Judge an implementation, level by level; each level counts only with all below it.

    If interrupted, it keeps the results so far in the report and in the JUnit XML.
    """
    own = goldens_opener(checkpoint, goldens)
    levels = levels or ("L0-L4" if own is None else FULL_SIZE)
    wanted = _levels(levels)
    full_size = wanted == {FULL_SIZE}
    if FULL_SIZE in wanted and not full_size:
        raise BadOption(f"--levels: got {levels}, expected {FULL_SIZE} alone: its models need weights of their own")
    if own is not None and not full_size:
        raise BadOption(f"--levels: got {levels} with --checkpoint, expected {FULL_SIZE}, as it is without the option")
    asked_of = [f"{kind}{given}" for kind, given in ((PORT, port), (ONE_SHOT, once), (DUMP, dump)) if given is not None]
    if len(asked_of) > 1:
        raise BadOption("--port, --once, --dump: got more than one of them, expected one")
    name = asked_of[0] if asked_of else impl
    limits = Limits(seconds=timeout) if memory_limit is None else Limits(seconds=timeout, gib=memory_limit)
    begun = partial(
        Session,
        name,
        profile,
        patterns=cases or ("*",),
        report=report,
        root=fixtures_dir,
        known=known_failures,
        limits=limits,
        full_size=(own or shipped_goldens) if full_size else None,
    )
    session = begun()
    asked = sorted((one for one in session.items if one.level in wanted), key=lambda one: one.level)
    if not asked:
        raise BadOption(f"--levels: got {levels}, expected levels of which --cases leaves something in")
    ids = [one.id for one in asked]
    session.start_report()
    judged: list[Judged] = []
    try:
        with progress_bar(quiet=as_json) as progress, closing(judge_each(session, ids, jobs, begun)) as coming:
            for done, case_id in enumerate(ids):
                progress(done, len(ids), case_id)
                judged.append(one := next(coming))
                if report is not None and one.line is not None:
                    report_file.append(report, one.line)
    except KeyboardInterrupt:
        complain(f"interrupted: {len(judged)} of {len(ids)} cases were judged")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if junit is not None:
            write_junit(junit, _title(session), judged)
    tallies = _tallied(judged)
    failures = [one.text for one in judged if one.counts_as == "fail"]
    if write_known_failures is not None:
        seen = [(one.case, one.outcome == "error", one.seen) for one in judged if one.outcome in ("fail", "error")]
        count = KnownFailures.write(write_known_failures, profile, seen)
        complain(f"{count} failures written to {write_known_failures}: say of each why it is")
    reached = badge(tallies, full_size=full_size) if session.is_whole else None
    if as_json:
        counts = {level: tally.counts for level, tally in tallies.items()}
        found = {"implementation": session.hello.name, "level": reached, "levels": counts}
        typer.echo(json.dumps(found | ({"models": models_of(asked)} if full_size else {}), indent=1))
    else:
        _tell(session, tallies, failures)
        level = badge_text(reached, asked) if session.is_whole else "asked with all cases only"
        out.print(f"level: {level}", highlight=False)
        if failures and report is not None:
            complain(f"what is wrong, and where: gemma4-conformance diagnose {report}")
    if report is not None:
        page = write_report_page(session.fixtures, report)
        if not as_json:
            out.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    passed = any(tally.count("pass") for tally in tallies.values())
    if not passed and not failures:
        complain("every case was skipped: nothing was shown to conform")
    raise typer.Exit(CONFORMS if passed and not failures else DIFFERS)


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


def _tallied(judged: Sequence[Judged]) -> dict[Level, Tally]:
    tallies: dict[Level, Tally] = {}
    for one in judged:
        tallies.setdefault(one.level, Tally()).add(one.counts_as)
    return tallies


def _title(session: Session) -> str:
    return f"{session.hello.name} {session.hello.version}, profile {session.profile}"


def _tell(session: Session, tallies: dict[Level, Tally], failures: list[str]) -> None:
    for text in failures[:_SHOWN]:
        out.print(f"{text}\n", markup=False, highlight=False, soft_wrap=True)
    if len(failures) > _SHOWN:
        out.print(f"... and {len(failures) - _SHOWN} failures more\n", highlight=False)
    table = Table(title=_title(session), title_justify="left")
    table.add_column("level")
    for heading in ("passed", "failed", "known", "skipped"):
        table.add_column(heading, justify="right")
    for level, tally in sorted(tallies.items()):
        figures = [str(tally.count(outcome)) for outcome in ("pass", "fail", "known", "skip")]
        table.add_row(f"{level} {LEVELS[level]}", *figures)
    out.print(table)
