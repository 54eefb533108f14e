"""The results of the last self-test in docs/results/kill_matrix.json: one for each mutant in each profile.

If mutants are new or judged again, only their results are replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from conformance.judging.examine import OneJudgement
from conformance.selftest.kill_matrix import Result
from gemma4_contract import FixtureError, Fixtures, tensors
from gemma4_contract.files import canonical_json, write_atomic
from gemma4_contract.judged import chained_digest, judged_digest


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Stored(_Strict):
    """A result without profile and mutant, which are keys; it has no witness if no case catches the mutant."""

    located: bool
    witness: tuple[str, str] | None = None


class _File(_Strict):
    """Profile -> mutant -> result; `fixtures` is the digest of the fixtures that they were judged on."""

    fixtures: str
    results: dict[str, dict[str, _Stored]]


def write(path: Path, results: Sequence[Result], fixtures: Fixtures, judgement: OneJudgement = "chained") -> None:
    """Write results that were judged on these fixtures."""
    stored: dict[str, dict[str, _Stored]] = {}
    for result in results:
        one = _Stored(located=result.located, witness=result.witness)
        stored.setdefault(result.profile, {})[result.mutant] = one
    file = _File(fixtures=digest_of(judgement, fixtures), results=stored)
    write_atomic(path, canonical_json(file.model_dump(mode="json", exclude_none=True)))


def read(path: Path, fixtures: Fixtures, judgement: OneJudgement = "chained") -> list[Result]:
    """The results of a file; FixtureError when it is missing or broken, or was judged on other fixtures."""
    option = " --local" if judgement == "local" else ""
    expected, cure = "results of a self-test", f"judge all mutants: gemma4-conformance self-test{option} --save {path}"
    if not path.is_file():
        raise FixtureError(path, got="no such file", expected=expected, cure=cure)
    try:
        file = _File.model_validate_json(tensors.read_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        got = f"{first['msg']} at {'.'.join(map(str, first['loc'])) or 'the whole file'}"
        raise FixtureError(path, got=got, expected=expected, cure=cure) from None
    digest = digest_of(judgement, fixtures)
    if file.fixtures != digest:
        got = f"{expected} on other fixtures ({file.fixtures[:12]}...)"
        raise FixtureError(path, got=got, expected=f"on these ({digest[:12]}...)", cure=cure)
    return [
        Result(mutant=mutant, profile=profile, located=one.located, witness=one.witness)
        for profile, found in file.results.items()
        for mutant, one in found.items()
    ]


def digest_of(judgement: OneJudgement, fixtures: Fixtures) -> str:
    """The digest of what a judgement's verdicts rest on."""
    return judged_digest(fixtures) if judgement == "local" else chained_digest(fixtures)


def merged(
    stored: Sequence[Result], judged: Sequence[Result], mutants: Sequence[str], profiles: Sequence[str]
) -> list[Result]:
    """The stored results, replaced by the judged ones, in the order of these profiles and mutants.

    Results of mutants that have left the catalogue are left out.
    """
    results = {(result.profile, result.mutant): result for result in (*stored, *judged)}
    order = [(profile, mutant) for profile in profiles for mutant in mutants]
    return [results[place] for place in order if place in results]
