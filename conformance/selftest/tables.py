"""Writes the results of the self-test into the README (its two numbers), docs/JUDGING.md and docs/NUMERICS.md (tables).

`python -m conformance.selftest.tables`, run in a checkout, writes them there from docs/results/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from conformance.judging.examine import OneJudgement
from conformance.selftest import local_score, mutation_score, specificity, stored_results
from conformance.selftest.kill_matrix import Result
from conformance.selftest.mutation_score import Score
from conformance.selftest.specificity import Trial
from gemma4_contract import Fixtures
from gemma4_contract.files import write_atomic
from reference.mutants import MUTANTS

DOCUMENTS = (Path("README.md"), Path("docs/JUDGING.md"), Path("docs/NUMERICS.md"))
KILL_MATRIX, TRIALS = Path("docs/results/kill_matrix.json"), Path("docs/results/self_test.json")
LOCAL_MATRIX, LOCAL_TRIALS = Path("docs/results/local_kill_matrix.json"), Path("docs/results/local_self_test.json")
_HEADLINE = re.compile(r"It catches \*\*.*?\(in float32;")


def read_results(root: Path, fixtures: Fixtures, judgement: OneJudgement = "chained") -> list[Result]:
    """The results that `self-test --save` wrote (with --local if so judged), in the order of the catalogue."""
    path = root / (LOCAL_MATRIX if judgement == "local" else KILL_MATRIX)
    return stored_results.merged(stored_results.read(path, fixtures, judgement), [], list(MUTANTS), fixtures.profiles)


def read_scores(root: Path) -> list[Score]:
    """The scores of these results, one for each profile."""
    return mutation_score.scores_of(read_results(root, Fixtures()), MUTANTS)


def read_trials(root: Path, path: Path = TRIALS) -> list[Trial]:
    """The trials that `self-test --honest --save docs/results/self_test.json` wrote, or those of another file."""
    saved = json.loads((root / path).read_text(encoding="utf-8"))["variants"]
    return TypeAdapter(list[Trial]).validate_python(saved)


def headline(scores: Sequence[Score], trials: Sequence[Trial]) -> str:
    """The README's two numbers, in f32: caught mistakes of those that are not equivalent, accused implementations."""
    (score,) = [score for score in scores if score.profile == "f32"]
    mine = [trial for trial in trials if trial.profile == "f32"]
    accused = sum(bool(trial.accused) for trial in mine)
    return (
        f"It catches **{len(score.caught)} of {score.real}** known mistakes and wrongly accuses "
        f"**{accused} of {len(mine)}** honest implementations (in float32;"
    )


def tables_of(root: Path) -> dict[str, str]:
    """Name -> every table of results, as Markdown."""
    local = local_score.local_scores(read_results(root, Fixtures(), "local"), MUTANTS)
    return {
        "mutation-score": mutation_score.as_table(read_scores(root)),
        "self-test": specificity.as_table(read_trials(root)),
        "local-score": local_score.as_table(local),
        "local-self-test": specificity.as_table(read_trials(root, LOCAL_TRIALS)),
    }


def with_results(text: str, numbers: str, tables: Mapping[str, str]) -> str:
    """A document with its numbers and tables as the results have them."""
    text = _HEADLINE.sub(numbers, text)
    for name, table in tables.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"\n<!-- /{name} -->")
        if end:
            text = f"{before}{begin}{table}{end}{after}"
    return text


def write(root: Path) -> None:
    """Write the results into the documents of a checkout."""
    numbers, tables = headline(read_scores(root), read_trials(root)), tables_of(root)
    for document in DOCUMENTS:
        text = (root / document).read_text(encoding="utf-8")
        write_atomic(root / document, with_results(text, numbers, tables).encode())


if __name__ == "__main__":
    write(Path())
