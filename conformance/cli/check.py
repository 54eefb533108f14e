"""`gemma4-conformance check`: judge answers that were computed elsewhere and stored in files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from conformance.cli.app import CONFORMS, DIFFERS, FixturesDir, Json, app, out, profile_option, profiles_of
from conformance.judging.examine import CaseVerdict
from conformance.reporting.text import describe
from gemma4_contract import FixtureError, Fixtures


@app.command()
def check(
    case: Annotated[str, typer.Argument(help="Id of the case.", metavar="CASE")],
    dump: Annotated[Path, typer.Argument(help="The answer: a safetensors file.", metavar="DUMP.safetensors")],
    profile: Annotated[str, profile_option("The arithmetic it claims")] = "f32",
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """Judge one answer that came back from a phone, say: its taps by name, as many as there are."""
    from conformance.diagnosis.replay import verdict_of_dump

    fixtures = Fixtures(fixtures_dir)
    asked = profiles_of(fixtures, "CASE", case)
    if asked and profile not in asked:
        raise FixtureError("--profile", got=profile, expected=" or ".join(asked), cure=f"{case} is asked there alone")
    verdict = verdict_of_dump(fixtures, profile, case, dump)
    again = f"gemma4-conformance check {case} {shlex.quote(str(dump))} --profile {profile}"
    if as_json:
        typer.echo(json.dumps(_as_json(verdict), indent=1))
    elif verdict.failed:
        out.print(describe(verdict, again), markup=False, highlight=False, soft_wrap=True)
    else:
        offered = sum(tap.status != "absent" for tap in verdict.taps)
        note = f": {verdict.note}" if verdict.note else ""
        out.print(f"{case}: {verdict.outcome}{note}; {offered} of {len(verdict.taps)} taps offered", highlight=False)
    raise typer.Exit(CONFORMS if verdict.outcome == "pass" else DIFFERS)


def _as_json(verdict: CaseVerdict) -> dict[str, object]:
    first = verdict.first_divergence
    return {
        "case": verdict.case.id,
        "outcome": verdict.outcome,
        "note": verdict.note,
        "first_divergence": first.name if first else None,
        "fault": first.fault if first else None,
        "taps": {tap.name: tap.status for tap in verdict.taps},
    }
