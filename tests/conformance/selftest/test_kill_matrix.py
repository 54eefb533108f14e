"""The kill matrix on a few mutants and cases: who is caught, where, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conformance import cli
from conformance.selftest import kill_matrix, kill_page, mutation_score, stored_results
from conformance.selftest.kill_matrix import Kill, Result, Row, expected_tap, row
from conformance.selftest.mutation_score import Idle, Score, idle, score
from conformance.selftest.reached import cases_of, reached
from gemma4_contract import FixtureError, Fixtures
from gemma4_contract.files import canonical_json
from gemma4_contract.judged import judged_digest
from reference import mutants
from reference.mutants import MUTANTS
from reference.mutants.mutant import STOPS, Mutant
from reference.oracle.ops import Ops
from tests.support.installed import FIXTURES

ROPE = MUTANTS["prop-rope-denominator"]
SCALE = MUTANTS["embed-scale-missing"]
GELU = MUTANTS["gelu-erf"]
EMBEDDING = "module/embedding/width-96"
AT_1 = "module/rope/proportional-at-1"
SLIDING, FULL = "layer/e2b-mini/sliding-own", "layer/e2b-mini/full-own"
L1, L2 = "forward/e2b-mini/uniform-l1/no-cache", "forward/e2b-mini/uniform-l2/no-cache"
DENSE = "forward/12b-mini/uniform-l2/no-cache"
FEW = (EMBEDDING, AT_1, SLIDING, FULL, L1, L2)


def made(mutant: str, *kills: str, profile: str = "f32", expected: bool = True) -> Row:
    """A row without a judge."""
    return Row(mutant=mutant, profile=profile, kills=tuple(Kill(case=c, tap="y", expected=expected) for c in kills))


# One mutant


def test_a_mutant_is_caught_by_the_cases_that_show_it_and_by_no_other() -> None:
    result = row(FIXTURES, ROPE, "f32", FEW)
    assert (result.mutant, result.profile, result.located) == ("prop-rope-denominator", "f32", True)
    assert [(kill.case, kill.tap) for kill in result.kills] == [
        (AT_1, "y"),
        (FULL, "model.layers.4.self_attn.q_rope"),
        (L2, "model.layers.4.self_attn.q_rope"),  # at L1 there is position 0 alone
    ]


def test_a_mutant_is_asked_what_the_profile_asks() -> None:
    rounded = "module/embedding/rounded-scale-bf16"
    assert [kill.case for kill in row(FIXTURES, SCALE, "bf16", (rounded,)).kills] == [rounded]
    assert [kill.case for kill in row(FIXTURES, SCALE, "f32", (rounded, EMBEDDING)).kills] == [EMBEDDING]


def test_a_mutant_that_nothing_shows_survives() -> None:
    result = row(FIXTURES, ROPE, "f32", (EMBEDDING, SLIDING, L1))
    assert result.kills == ()
    assert not result.located


def test_a_mistake_seen_elsewhere_first_is_not_located() -> None:
    elsewhere = dataclasses.replace(ROPE, first_tap="self_attn.k_rope")
    result = row(FIXTURES, elsewhere, "f32", (AT_1, L2))
    assert [kill.expected for kill in result.kills] == [True, False]  # a module case holds one step alone
    assert not result.located


def test_a_port_that_stops_is_caught_where_it_stops() -> None:
    result = row(FIXTURES, MUTANTS["global-head-dim-ignored"], "f32", (EMBEDDING, L2))
    assert result.kills == (Kill(case=L2, tap=STOPS, expected=True),)
    surprise = dataclasses.replace(MUTANTS["global-head-dim-ignored"], first_tap="self_attn.q_rope")
    assert row(FIXTURES, surprise, "f32", (L2,)).kills == (Kill(case=L2, tap=STOPS, expected=False),)


# Where a mistake is expected


@pytest.mark.parametrize(
    ("tap", "layers", "case", "expected"),
    [
        ("self_attn.q_rope", "full layers", L2, "model.layers.4.self_attn.q_rope"),
        ("self_attn.q_rope", "every layer", L2, "model.layers.0.self_attn.q_rope"),
        ("self_attn.q_rope", "full layers", FULL, "model.layers.4.self_attn.q_rope"),  # a layer is asked alone
        ("output", "KV-shared layers", L2, "model.layers.5.output"),
        ("output", "the last layer", L2, "model.layers.9.output"),
        ("model.embed_tokens", "every layer", L2, "model.embed_tokens"),
        ("logits", "every layer", L2, "logits"),
        (STOPS, "every layer", L2, STOPS),
        ("self_attn.k_rope", "KV-shared layers", L2, "self_attn.k_rope"),  # shared layers make no keys
        ("router.proj", "every layer", L2, "router.proj"),
        ("self_attn.probs", "sliding layers", L2, "model.layers.0.self_attn.probs"),
        ("self_attn.probs", "sliding layers", L2.replace("no-cache", "tokens"), "model.layers.0.self_attn.context"),
        ("self_attn.probs", "every layer", L1, "model.layers.0.self_attn.context"),  # one key has all the weight
        ("model.ple or self_attn.q_norm", "every layer", L2, "model.ple"),
        ("model.ple or self_attn.q_norm", "every layer", DENSE, "model.layers.0.self_attn.q_norm"),
    ],
)
def test_where_a_mistake_is_first_seen_depends_on_what_is_asked(
    tap: str, layers: str, case: str, expected: str
) -> None:
    mutant = dataclasses.replace(ROPE, first_tap=tap, layers=layers)
    assert expected_tap(FIXTURES, mutant, FIXTURES.case(case)) == expected


# Which cases reach a mistake


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Fixtures:
    """The fixtures with six cases, and a catalogue of three mistakes."""
    catalogue = {mutant.id: mutant for mutant in (ROPE, SCALE, GELU)}
    for module in (kill_matrix, mutants):
        monkeypatch.setattr(module, "MUTANTS", catalogue)
    fixtures = Fixtures()
    monkeypatch.setitem(fixtures.__dict__, "case_ids", FEW)
    return fixtures


def test_the_cases_that_call_a_function_are_found(few: Fixtures) -> None:
    calls = reached(few, "f32")
    assert cases_of(ROPE, calls, few.case_ids) == [AT_1, SLIDING, FULL, L1, L2]
    assert cases_of(SCALE, calls, few.case_ids) == [EMBEDDING, L1, L2]
    assert cases_of(GELU, calls, few.case_ids) == [SLIDING, FULL, L1, L2]
    assert calls["Decoder.layer"] == calls["TextConfig.from_dict"] == calls["Loader.checked"] == [SLIDING, FULL, L1, L2]
    assert calls["Decoder.forward"] == [L1, L2]
    assert "Ops.experts" not in calls


def test_a_mutant_of_several_functions_is_put_to_the_cases_of_any() -> None:
    mutant = MUTANTS["layer-scalar-on-branch"]
    assert mutant.replaces == ("Decoder.feed_forward", "Decoder.weight")
    assert cases_of(mutant, {"Decoder.weight": [L2], "Decoder.feed_forward": [FULL], "Ops.rope": [L1]}, FEW) == [
        FULL,
        L2,
    ]


def test_the_oracle_is_whole_again(few: Fixtures) -> None:
    reached(few, "f32")
    assert row(FIXTURES, dataclasses.replace(ROPE, wrong=Ops), "f32", FEW).kills == ()


def test_a_case_of_another_profile_is_not_reached(few: Fixtures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(few.__dict__, "case_ids", ("module/embedding/rounded-scale-bf16", EMBEDDING))
    assert cases_of(SCALE, reached(few, "f32"), few.case_ids) == [EMBEDDING]
    assert cases_of(SCALE, reached(few, "bf16"), few.case_ids) == ["module/embedding/rounded-scale-bf16"]


# The score

_CATALOGUE = {
    "caught": ROPE,
    "elsewhere": ROPE,
    "lost": ROPE,
    "explained": dataclasses.replace(ROPE, survives_in={"f32": "nobody can see it"}),
    "equal": dataclasses.replace(ROPE, equivalent_in={"f32": "it changes nothing"}),
    "not equal": dataclasses.replace(ROPE, equivalent_in={"f32": "it is said to change nothing"}),
    "not lost": dataclasses.replace(ROPE, survives_in={"f32": "it is said to be seen by nobody"}),
    "equal elsewhere": dataclasses.replace(ROPE, equivalent_in={"f64": "it changes nothing there"}),
}
CATALOGUE = {name: dataclasses.replace(mutant, id=name) for name, mutant in _CATALOGUE.items()}
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


# The stored results

STORED = (
    Result(mutant=ROPE.id, profile="f32", located=False, witness=(AT_1, "y")),
    Result(mutant=SCALE.id, profile="f32", located=False, witness=None),
    Result(mutant=SCALE.id, profile="f64", located=True, witness=(L1, "model.embed_tokens")),
)


def test_results_are_written_by_profile_and_mutant(tmp_path: Path) -> None:
    stored_results.write(tmp_path / "results.json", STORED, FIXTURES)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored == {
        "fixtures": judged_digest(FIXTURES),
        "results": {
            "f32": {ROPE.id: {"located": False, "witness": [AT_1, "y"]}, SCALE.id: {"located": False}},
            "f64": {SCALE.id: {"located": True, "witness": [L1, "model.embed_tokens"]}},
        },
    }


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    stored_results.write(tmp_path / "results.json", STORED, FIXTURES)
    read = stored_results.read(tmp_path / "results.json", FIXTURES)
    assert sorted(read, key=str) == sorted(STORED, key=str)


def test_judged_results_replace_stored_ones_in_the_order_of_the_catalogue() -> None:
    again, new = made(ROPE.id, L2).result, made(GELU.id, L1).result
    results = stored_results.merged(STORED, [new, again], [GELU.id, ROPE.id, SCALE.id], ["f64", "f32"])
    assert results == [STORED[2], new, again, STORED[1]]
    assert stored_results.merged(STORED, [], [ROPE.id], ["f64", "f32"]) == [STORED[0]]  # the other is no mutant now


def test_results_on_other_fixtures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    stored_results.write(path, STORED, FIXTURES)
    path.write_bytes(canonical_json(json.loads(path.read_bytes()) | {"fixtures": "0" * 64}))
    with pytest.raises(FixtureError) as refused:
        stored_results.read(path, FIXTURES)
    assert str(refused.value) == (
        f"{path}: got results of a self-test on other fixtures (000000000000...), expected on these "
        f"({judged_digest(FIXTURES)[:12]}...); judge all mutants: gemma4-conformance self-test --save {path}"
    )


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"{", "Invalid JSON"),
        (b"{}", "Field required at fixtures"),
        (b'{"fixtures": "", "results": {"f32": {"a": {"located": 2}}}}', "boolean"),
    ],
)
def test_broken_results_are_refused(content: bytes, got: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(FixtureError, match=re.escape(got)) as refused:
        stored_results.read(tmp_path / "results.json", FIXTURES)
    assert "expected results of a self-test; judge all mutants" in str(refused.value)


# The page


class Page(HTMLParser):
    """Tags with their attributes, text apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[Mapping[str, str | None]] = []
        self.heads: dict[str, Mapping[str, str | None]] = {}
        self._head: Mapping[str, str | None] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        if tag == "td":
            self.cells.append(dict(attributes))
        if tag == "th":
            self._head = dict(attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "th":
            self.heads[data] = self._head


def page_of(monkeypatch: pytest.MonkeyPatch, catalogue: Mapping[str, Mutant], *rows: Row) -> tuple[str, Page]:
    monkeypatch.setattr(kill_page, "MUTANTS", catalogue)
    html = kill_page.render(rows, FIXTURES)
    return html, Page(html)


def test_the_page_shades_what_catches_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    ropes = [case for case in FIXTURES.case_ids if case.startswith("module/rope/")]
    rows = (made("caught", *ropes), made("elsewhere", ropes[0], SLIDING), made("lost"), made("equal"))
    html, page = page_of(monkeypatch, CATALOGUE, *rows)
    assert page.open == []
    columns = list(dict.fromkeys(kill_page.group(case) for case in FIXTURES.cases()))
    first, second, third, fourth = (page.cells[i * len(columns) : (i + 1) * len(columns)] for i in range(4))
    rope, layer = columns.index("module/rope"), columns.index("layer/e2b-mini")
    assert first[rope] == {"class": "s4", "title": f"module/rope: {len(ropes)} of {len(ropes)}"}
    assert second[rope] == {"class": "s1", "title": f"module/rope: 1 of {len(ropes)}"}
    assert second[layer]["class"] == "s1"
    assert [cell for cell in (*third, *fourth) if cell] == []
    assert "<h2>f32</h2>" in html
    assert "2 of 3 mistakes caught\n(66.7 %)" in html


def test_every_profile_has_a_table_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    html, page = page_of(monkeypatch, CATALOGUE, made("caught", AT_1), made("lost"), made("caught", profile="f64"))
    assert re.findall("<h2>(.*)</h2>", html) == ["f32", "f64"]
    assert len(page.cells) == 3 * len({kill_page.group(case) for case in FIXTURES.cases()})


def test_survivors_and_equivalents_stand_out_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    _, page = page_of(monkeypatch, CATALOGUE, made("caught", "a"), made("lost"), made("equal"))
    classes = {name: page.heads[name].get("class") for name in ("caught", "lost", "equal")}
    assert classes == {"caught": None, "lost": "survivor", "equal": "equivalent"}


def test_what_a_mistake_does_is_text_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    does = 'Takes "a" for <b> & both.'
    _, page = page_of(monkeypatch, {"caught": dataclasses.replace(ROPE, id="caught", does=does)}, made("caught", AT_1))
    assert page.heads["caught"]["title"] == does


def test_the_page_needs_nothing_else() -> None:
    rows = [made(ROPE.id, AT_1)]
    html = kill_page.render(rows, FIXTURES)
    assert "http" not in html
    assert "src=" not in html


# The command

Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def self_test(
    few: Fixtures, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Called:
    """`gemma4-conformance self-test` on three mistakes and six cases; exit code, stdout, stderr."""
    from conformance.cli import self_test as command

    monkeypatch.setattr(command, "Fixtures", lambda _: few)
    monkeypatch.chdir(tmp_path)

    def call(*options: str) -> tuple[int, str, str]:
        arguments = ["self-test", "--profile", "f32", "--jobs", "1", *options]
        monkeypatch.setattr(sys, "argv", ["gemma4-conformance", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


def test_a_catalogue_that_is_caught_is_green(self_test: Called, tmp_path: Path) -> None:
    code, out, err = self_test("--save", "score.json", "--page", "page.html")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "| f32 | 3 | 0 | 3 of 3 | 100.0% | 3 of 3 |"
    saved = json.loads((tmp_path / "score.json").read_text())
    assert saved["results"]["f32"][ROPE.id] == {"located": True, "witness": [AT_1, "y"]}
    assert Page((tmp_path / "page.html").read_text()).heads.keys() >= {ROPE.id, SCALE.id, GELU.id}


def test_a_survivor_is_named_and_turns_the_run_red(
    self_test: Called, few: Fixtures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(few.__dict__, "case_ids", (EMBEDDING, AT_1))
    code, out, err = self_test()
    assert code == 1
    assert err == "f32: gelu-erf is not caught: and the catalogue does not say why\n"
    assert out.splitlines()[-1] == "| f32 | 3 | 0 | 2 of 3 | 66.7% | 2 of 2 |"


def test_a_survivor_with_a_reason_is_named_and_green(
    self_test: Called, few: Fixtures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(few.__dict__, "case_ids", (EMBEDDING, AT_1))
    explained = dataclasses.replace(GELU, survives_in={"f32": "no case with an MLP is put"})
    monkeypatch.setattr(mutants, "MUTANTS", {**mutants.MUTANTS, GELU.id: explained})
    code, _, err = self_test()
    assert code == 0
    assert err == "f32: gelu-erf is not caught: no case with an MLP is put\n"


def test_a_mutant_that_is_declared_equivalent_and_fails_a_case_turns_the_run_red(
    self_test: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = {"f32": "It is said to change nothing."}
    catalogue = {**mutants.MUTANTS, ROPE.id: dataclasses.replace(ROPE, equivalent_in=declared)}
    monkeypatch.setattr(mutants, "MUTANTS", catalogue)
    code, out, err = self_test()
    assert code == 1
    assert err == f"f32: {ROPE.id} does otherwise than the catalogue says: it is caught\n"
    assert out.splitlines()[-1] == "| f32 | 3 | 1 | 2 of 2 | 100.0% | 2 of 2 |"


def test_the_matrix_as_json(self_test: Called) -> None:
    code, out, err = self_test("--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["kills"]["f32"][ROPE.id] == {
        AT_1: "y",
        FULL: "model.layers.4.self_attn.q_rope",
        L2: "model.layers.4.self_attn.q_rope",
    }
    assert [result["caught"] for result in told["scores"]] == [[ROPE.id, SCALE.id, GELU.id]]
    assert told["idle"] == {"f32": {"catch_nothing": [], "catch_nothing_alone": list(FEW)}}


def test_two_mutants_are_judged_and_their_results_alone_are_written(self_test: Called, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    stored_results.write(path, STORED, FIXTURES)
    before = json.loads(path.read_text())
    code, out, err = self_test("--only", GELU.id, "--only", ROPE.id, "--save", str(path))
    assert code == 1
    assert err == f"f32: {SCALE.id} is not caught: and the catalogue does not say why\n"  # as the file has it
    after = json.loads(path.read_text())
    gelu = {"located": True, "witness": [SLIDING, "model.layers.0.mlp.act"]}
    assert after["results"]["f32"].pop(GELU.id) == gelu
    assert after["results"]["f32"].pop(ROPE.id) == {"located": True, "witness": [AT_1, "y"]}
    del before["results"]["f32"][ROPE.id]
    assert after == before
    assert out.splitlines()[-2:] == [
        "| f64 | 1 | 0 | 1 of 1 | 100.0% | 1 of 1 |",
        "| f32 | 3 | 0 | 2 of 3 | 66.7% | 2 of 2 |",
    ]


def test_one_mutant_is_judged_without_a_file(self_test: Called) -> None:
    code, out, err = self_test("--only", SCALE.id)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "| f32 | 1 | 0 | 1 of 1 | 100.0% | 1 of 1 |"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--only", "gelu-erv"),
            "self-test --only: got 'gelu-erv', expected the id of a known mistake; did you mean gelu-erf?",
        ),
        (("--only", GELU.id, "--honest"), "self-test: got --only with --honest, expected one of them"),
        (
            ("--only", GELU.id, "--save", "none.json"),
            "none.json: got no such file, expected results of a self-test; judge all",
        ),
    ],
)
def test_what_cannot_be_judged_alone_is_refused(options: tuple[str, ...], message: str, self_test: Called) -> None:
    code, out, err = self_test(*options)
    assert (code, out) == (2, "")
    assert err.startswith(message)


def test_the_page_shows_no_honest_implementations(self_test: Called, tmp_path: Path) -> None:
    code, out, err = self_test("--honest", "--page", "page.html")
    assert (code, out) == (2, "")
    assert err.startswith("self-test: got --page with --honest, expected one of them")
    assert not (tmp_path / "page.html").exists()
