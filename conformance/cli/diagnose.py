"""`gemma4-conformance diagnose`: from failed cases to the mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from conformance.adapters.base import Adapter
from conformance.adapters.registry import AdapterUnavailable, BadOption, create
from conformance.cli.app import CONFORMS, DIFFERS, FixturesDir, Json, app, out, profile_option, profiles_of
from conformance.cli.full_size import fixtures_of_report
from conformance.reporting.jsonl import CaseLine
from gemma4_contract import Fixtures


@app.command()
def diagnose(
    path: Annotated[Path, typer.Argument(help="Folder of `pytest conformance/ --report DIR`, or a .safetensors dump.")],
    case: Annotated[str | None, typer.Option(help="The case that a dump answers.", metavar="ID")] = None,
    profile: Annotated[str, profile_option("The arithmetic that a dump claims")] = "f32",
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """Say where a port is first wrong, how, and which known mistake it looks like.

    A port that is installed here is asked again, for the smallest question that still fails.
    """
    from conformance.diagnosis import diagnose as diagnosing
    from conformance.diagnosis import render, replay
    from reference.mutants import MUTANTS

    fixtures = Fixtures(fixtures_dir)
    port: Adapter | None = None
    wrong_prompts: list[CaseLine] = []
    impl = "NAME"
    if path.suffix == ".safetensors":
        if case is None:
            raise BadOption("diagnose: got a dump without --case, expected the id of the case that it answers")
        asked = profiles_of(fixtures, "--case", case)
        if asked and profile not in asked:
            raise BadOption(f"diagnose: got --profile {profile}, expected {' or '.join(asked)}: {case} is asked there")
        verdicts = [replay.verdict_of_dump(fixtures, profile, case, path)]
    else:
        fixtures = fixtures_of_report(fixtures, path)
        run, verdicts = replay.verdicts_of_report(fixtures, path)
        wrong_prompts = replay.wrong_prompts(path)
        profile, impl = run.profile, run.impl
        port = _installed(impl)
    diagnosis = diagnosing.diagnose(fixtures, profile, verdicts, MUTANTS, port)
    if as_json:
        nothing = {"failing": 0, "judged": len(verdicts)}
        tensors = render.as_json(fixtures, diagnosis, impl, profile) if diagnosis else nothing
        prompts = [{"question": line.case, "fault": line.note} for line in wrong_prompts]
        typer.echo(json.dumps(tensors | {"wrong_prompts": prompts}, indent=1))
    else:
        text = render.everything_as_text(fixtures, diagnosis, wrong_prompts, impl, profile)
        out.print(text or "nothing failed", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(DIFFERS if diagnosis or wrong_prompts else CONFORMS)


def _installed(impl: str) -> Adapter | None:
    """The port of the report, if it can be driven here."""
    try:
        return create(impl)
    except (AdapterUnavailable, BadOption):
        return None
