"""`gemma4-conformance self-test`: what the suite catches, and whom it accuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from conformance.adapters.registry import BadOption
from conformance.cli.app import (
    CONFORMS,
    DIFFERS,
    FixturesDir,
    Json,
    app,
    complain,
    needs_reference,
    out,
    profile_option,
    progress_bar,
)
from gemma4_contract import Fixtures
from gemma4_contract.files import canonical_json, write_atomic


@app.command("self-test")
def self_test(
    honest: Annotated[
        bool, typer.Option("--honest", help="Judge every honest implementation instead: none may be accused.")
    ] = False,
    profile: Annotated[str | None, profile_option("This profile alone, instead of all")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that judge mutants.")] = os.cpu_count() or 1,
    save: Annotated[Path | None, typer.Option(help="Write a JSON summary to this file too.", metavar="FILE")] = None,
    page: Annotated[Path | None, typer.Option(help="Draw the kill matrix on a page.", metavar="FILE.html")] = None,
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """Test the suite itself: judge every known mistake, each put into the reference, in every profile.

    With --honest judge every honest implementation; that needs the extras `reference` and `mlx-lm`.
    """
    if honest and page:
        raise BadOption("self-test: got --page with --honest, expected one of them: the page shows the kill matrix")
    fixtures = Fixtures(fixtures_dir)
    profiles = [profile] if profile else fixtures.profiles
    if honest:
        _specificity(fixtures, profiles, save, as_json)
    else:
        _mutation_score(fixtures, profiles, jobs, save, page, as_json)


def _mutation_score(
    fixtures: Fixtures, profiles: list[Any], jobs: int, save: Path | None, page: Path | None, as_json: bool
) -> None:
    from conformance.selftest import kill_matrix, kill_page, mutation_score
    from reference.mutants import MUTANTS

    with progress_bar(quiet=as_json) as progress:
        rows = kill_matrix.kill_matrix(fixtures, profiles, jobs, progress)
    scores = [
        mutation_score.score([row for row in rows if row.profile == profile], MUTANTS, asked(fixtures, profile))
        for profile in profiles
    ]
    summary = mutation_score.summary(rows, scores, fixtures)
    if save:
        write_atomic(save, canonical_json(summary))
    if page:
        write_atomic(page, kill_page.render(rows, scores, fixtures).encode())
    if as_json:
        typer.echo(json.dumps(summary | {"kills": mutation_score.kills(rows)}, indent=1))
    else:
        for result in scores:
            for mutant in result.survivors:
                reason = MUTANTS[mutant].survives_in.get(result.profile, "and the catalogue does not say why")
                complain(f"{result.profile}: {mutant} is not caught: {reason}")
            for mutant in sorted(set(result.untrue) - set(result.survivors)):
                complain(f"{result.profile}: {mutant} does otherwise than the catalogue says: it is caught")
        out.print(mutation_score.as_table(scores), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(DIFFERS if any(result.untrue for result in scores) else CONFORMS)


def asked(fixtures: Fixtures, profile: str) -> list[str]:
    """The cases that are asked in a profile."""
    return [case.id for case in fixtures.cases() if not case.profiles or profile in case.profiles]


def _specificity(fixtures: Fixtures, profiles: list[Any], save: Path | None, as_json: bool) -> None:
    with needs_reference("self-test --honest"), progress_bar(quiet=as_json) as progress:
        from conformance.selftest import specificity

        results = specificity.trials(fixtures, profiles, progress)
    accused = sum(len(trial.accused) for trial in results)
    summary = specificity.as_json(results, fixtures)
    if save:
        write_atomic(save, canonical_json(summary))
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    else:
        for trial in results:
            for case_id in trial.accused:
                complain(f"{trial.profile}, {trial.variant}: accused in {case_id}")
        out.print(specificity.as_table(results), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(DIFFERS if accused else CONFORMS)
