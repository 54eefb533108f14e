"""`gemma4-conformance diagnose`: from failed cases to the mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from conformance.adapters.base import Adapter
from conformance.adapters.registry import AdapterUnavailable, BadOption, create
from conformance.cli.app import CONFORMS, DIFFERS, FixturesDir, Json, app, out
from reference.format import FixtureError, Fixtures
from reference.format.models import Profile


@app.command()
def diagnose(
    path: Annotated[Path, typer.Argument(help="Folder of `pytest conformance/ --report DIR`, or a .safetensors dump.")],
    case: Annotated[str | None, typer.Option(help="The case that a dump answers.", metavar="ID")] = None,
    profile: Annotated[Profile, typer.Option(help="The arithmetic that a dump claims.")] = "f32",
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """Say where a port is first wrong, how, and which known mistake it looks like.

    A port that is installed here is asked again, for the smallest question that still fails.
    """
    from conformance.diagnosis import diagnose as diagnosing
    from conformance.diagnosis import reading, telling
    from reference.mutants import MUTANTS

    fixtures = Fixtures(fixtures_dir)
    port: Adapter | None = None
    impl = "NAME"
    if path.suffix == ".safetensors":
        if case is None:
            raise BadOption("diagnose: got a dump without --case, expected the id of the case that it answers")
        if case not in fixtures.case_ids:
            raise FixtureError("--case", got=case, expected="the id of a case", cure="see `gemma4-conformance list`")
        asked = fixtures.case(case).profiles
        if asked and profile not in asked:
            raise BadOption(f"diagnose: got --profile {profile}, expected {' or '.join(asked)}: {case} is asked there")
        verdicts = [reading.of_dump(fixtures, profile, case, path)]
    else:
        run, verdicts = reading.of_report(fixtures, path)
        profile, impl = run.profile, run.impl
        port = _installed(impl)
    diagnosis = diagnosing.diagnose(fixtures, profile, verdicts, MUTANTS, port)
    if diagnosis is None:
        typer.echo(json.dumps({"failing": 0, "judged": len(verdicts)}) if as_json else "nothing failed")
        raise typer.Exit(CONFORMS)
    if as_json:
        typer.echo(json.dumps(telling.as_json(diagnosis, impl, profile), indent=1))
    else:
        out.print(telling.as_text(diagnosis, impl, profile), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(DIFFERS)


def _installed(impl: str) -> Adapter | None:
    """The port of the report, if it can be driven here."""
    try:
        return create(impl)
    except (AdapterUnavailable, BadOption):
        return None
