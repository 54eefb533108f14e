"""The mutation score of a small catalogue, its table and its summary."""

from __future__ import annotations

import dataclasses
import json
import re

from conformance.selftest import mutation_score
from conformance.selftest.kill_matrix import Kill, Row
from conformance.selftest.mutation_score import Idle, Score, idle, score
from tests.support.installed import FIXTURES
from tests.support.kill_matrices import CATALOGUE, made

ROWS = (
    made("caught", "a", "b"),
    made("elsewhere", "b", expected=False),
    made("lost"),
    made("explained"),
    made("equal"),
    made("not equal", "d"),
    made("not lost", "b"),
    made("equal elsewhere", "a", "b"),
)
RESULTS = [row.result for row in ROWS]


def test_every_mutant_is_counted_where_it_belongs() -> None:
    result = score(RESULTS, CATALOGUE)
    assert result == Score(
        profile="f32",
        mutants=tuple(CATALOGUE),
        equivalent=("equal", "not equal"),
        caught=("caught", "elsewhere", "not lost", "equal elsewhere"),
        located=("caught", "not lost", "equal elsewhere"),
        survivors=("lost", "explained"),
        untrue=("lost", "not equal", "not lost"),
    )
    assert result.real == 6
    assert result.share == 4 / 6


def test_cases_that_no_mutant_needs_are_idle() -> None:
    assert idle(ROWS, CATALOGUE, ["a", "b", "c", "d"]) == Idle(
        catch_nothing=("c", "d"),  # d catches but what is no mistake
        catch_nothing_alone=("a", "c", "d"),
    )


def test_a_catalogue_that_holds_is_all_true() -> None:
    results = [one for one in RESULTS if one.mutant in ("caught", "explained", "equal", "equal elsewhere")]
    assert score(results, CATALOGUE).untrue == ()


def test_the_table_has_a_row_for_every_profile() -> None:
    one = score(RESULTS, CATALOGUE)
    two = score([dataclasses.replace(result, profile="f64") for result in RESULTS], CATALOGUE)
    head, line, *rows = mutation_score.as_table([one, two]).splitlines()
    assert head.count("|") == line.count("|") == 7
    assert rows == ["| f32 | 8 | 2 | 4 of 6 | 66.7% | 3 of 4 |", "| f64 | 8 | 1 | 4 of 7 | 57.1% | 3 of 4 |"]


def test_the_summary_tells_one_witness_of_every_mutant_that_is_caught() -> None:
    """The first case that sees it where it is expected, if there is one."""
    late = Row(
        mutant="caught",
        profile="f32",
        kills=(Kill(case="a", tap="x", expected=False), Kill(case="b", tap="y", expected=True)),
    )
    results = [late.result, *RESULTS[1:3]]
    told = mutation_score.summary(results, [score(results, CATALOGUE)], FIXTURES)
    told = json.loads(json.dumps(told))
    assert told["witnesses"] == {"f32": {"caught": ["b", "y"], "elsewhere": ["b", "y"]}}
    assert [result["survivors"] for result in told["scores"]] == [["lost"]]
    assert re.fullmatch("[0-9a-f]{64}", told["fixtures"])


def test_the_whole_matrix_is_told_by_profile_mutant_and_case() -> None:
    rows = [made("caught", "a", "b"), made("lost"), made("caught", "c", profile="f64")]
    assert mutation_score.kills(rows) == {
        "f32": {"caught": {"a": "y", "b": "y"}, "lost": {}},
        "f64": {"caught": {"c": "y"}},
    }
