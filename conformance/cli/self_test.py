"""`gemma4-conformance self-test`: what the suite catches, and whom it accuses."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from conformance.judging.examine import OneJudgement
from gemma4_contract import Fixtures
from gemma4_contract.files import canonical_json, write_atomic

if TYPE_CHECKING:
    from conformance.selftest.kill_matrix import Result, Row


@app.command("self-test")
def self_test(
    honest: Annotated[
        bool, typer.Option("--honest", help="Judge every honest implementation instead: none may be accused.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Judge this known mistake alone, or several; --save then keeps the results of others.", metavar="ID"
        ),
    ] = None,
    profile: Annotated[str | None, profile_option("This profile alone, instead of all")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that judge mutants.")] = os.cpu_count() or 1,
    save: Annotated[
        Path | None, typer.Option(help="Write what was judged to this JSON file too.", metavar="FILE")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Draw the kill matrix on a page.", metavar="FILE.html")] = None,
    local: Annotated[
        bool,
        typer.Option("--local", help="By the local judgement alone; with --honest by both, on the cases that have it."),
    ] = False,
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """Test the suite itself: judge every known mistake, each put into the reference, in every profile.

    With --honest judge every honest implementation; that needs the extras `reference` and `mlx-lm`.
    """
    if honest and page:
        raise BadOption("self-test: got --page with --honest, expected one of them: the page shows the kill matrix")
    if honest and only:
        raise BadOption("self-test: got --only with --honest, expected one of them: known mistakes are not honest")
    fixtures = Fixtures(fixtures_dir)
    profiles = [profile] if profile else fixtures.profiles
    judgement: OneJudgement = "local" if local else "chained"
    if local and page:
        raise BadOption(
            "self-test: got --page with --local, expected one of them: the page shows the whole kill matrix"
        )
    if honest:
        _specificity(fixtures, profiles, save, as_json, judgement)
        return
    rows, results = _judged(fixtures, profiles, only or [], jobs, save, judgement, quiet=as_json)
    if local:
        _local_score(rows, results, as_json)
    else:
        _mutation_score(fixtures, rows, results, page, as_json)


def _judged(
    fixtures: Fixtures,
    profiles: list[Any],
    only: list[str],
    jobs: int,
    save: Path | None,
    judgement: OneJudgement,
    *,
    quiet: bool,
) -> tuple[list[Row], list[Result]]:
    """The rows of the mutants that were chosen, and the results of all that are known; these are saved."""
    from conformance.adapters.mutant import known_mistake
    from conformance.selftest import kill_matrix, stored_results
    from reference.mutants import MUTANTS

    chosen = [known_mistake("self-test --only", mutant) for mutant in only] or list(MUTANTS.values())
    stored = stored_results.read(save, fixtures, judgement) if only and save else []
    with progress_bar(quiet=quiet) as progress:
        rows = kill_matrix.kill_matrix(fixtures, profiles, chosen, jobs, progress, judgement)
    results = stored_results.merged(stored, [row.result for row in rows], list(MUTANTS), fixtures.profiles)
    if save:
        stored_results.write(save, results, fixtures, judgement)
    return rows, results


def _mutation_score(
    fixtures: Fixtures, rows: list[Row], results: list[Result], page: Path | None, as_json: bool
) -> None:
    from conformance.selftest import kill_page, mutation_score
    from reference.mutants import MUTANTS

    scores = mutation_score.scores_of(results, MUTANTS)
    if page:
        write_atomic(page, kill_page.render(rows, fixtures).encode())
    if as_json:
        summary = mutation_score.summary(results, scores, fixtures)
        idle = mutation_score.idle_of(rows, MUTANTS, fixtures)
        matrix = {
            "kills": mutation_score.kills(rows),
            "idle": {name: asdict(cases) for name, cases in idle.items()},
        }
        typer.echo(json.dumps(summary | matrix, indent=1))
    else:
        for result in scores:
            for mutant in result.survivors:
                reason = MUTANTS[mutant].survives_in.get(result.profile, "and the catalogue does not say why")
                complain(f"{result.profile}: {mutant} is not caught: {reason}")
            for mutant in sorted(set(result.untrue) - set(result.survivors)):
                complain(f"{result.profile}: {mutant} does otherwise than the catalogue says: it is caught")
        out.print(mutation_score.as_table(scores), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(DIFFERS if any(result.untrue for result in scores) else CONFORMS)


def _local_score(rows: list[Row], results: list[Result], as_json: bool) -> None:
    """What no goldens are needed for; a mistake that is not seen is no failure, since the goldens show it."""
    from conformance.selftest import local_score, mutation_score
    from reference.mutants import MUTANTS

    scores = local_score.local_scores(results, MUTANTS)
    if as_json:
        summary = {"scores": [asdict(one) for one in scores], "kills": mutation_score.kills(rows)}
        typer.echo(json.dumps(summary, indent=1))
    else:
        for score in scores:
            for mutant in score.unseen:
                complain(f"{score.profile}: {mutant} is left to the goldens")
        out.print(local_score.as_table(scores), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(CONFORMS)


def _specificity(
    fixtures: Fixtures, profiles: list[Any], save: Path | None, as_json: bool, judgement: OneJudgement
) -> None:
    with needs_reference("self-test --honest"), progress_bar(quiet=as_json) as progress:
        from conformance.selftest import specificity

        results = specificity.trials(fixtures, profiles, progress, judgement)
    accused = sum(len(trial.accused) for trial in results)
    summary = specificity.as_json(results, fixtures, judgement)
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
