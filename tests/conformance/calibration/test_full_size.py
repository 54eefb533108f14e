"""L5 from end to end on a small model in the place of a large one, and how the command refuses what it cannot do."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from conformance.adapters.base import Request
from conformance.adapters.mlx_impl import adapter as mlx_impl_adapter
from conformance.adapters.mlx_impl.adapter import MlxImplAdapter
from conformance.adapters.registry import BadOption
from conformance.calibration.error_table import ErrorTable
from conformance.calibration.full_size_floors import _take_rows
from conformance.cli import app
from conformance.cli.full_size import materialised, opened
from conformance.judging.examine import Examiner
from conformance.judging.judge import Judge
from conformance.judging.question import Question
from conformance.run.session import Session
from gemma4_contract import FixtureError, Fixtures, tensors
from gemma4_contract.full_size import at_full_size
from gemma4_contract.graph import text_graph
from gemma4_contract.models import Variant
from gemma4_contract.routing import routing_margins
from mlx_impl.checkpoint.load import held_bytes
from mlx_impl.checkpoint.streamed import StreamedLayer
from reference import full_size
from reference.config import TextConfig
from reference.export import full_size as exporter
from reference.export import second
from reference.family import FAMILY
from reference.models import MODELS, Model
from reference.oracle.arithmetic import F32
from reference.oracle.ops import Ops
from reference.oracle.oracle import ORACLE, Oracle
from reference.streaming import forward
from reference.streaming.arithmetic import streamed
from reference.streaming.kept import Keeper, Kept
from reference.streaming.matrix import RuleMatrix
from reference.streaming.source import own
from reference.streaming.weights import by_rule
from tests.support.runs import run_command
from tests.support.wide_models import WIDE

NAMES = {"tiny-full": "e2b-mini", "experts-full": "26b-a4b-mini"}
TINY = {
    name: Model(
        id=name,
        member=FAMILY[MODELS[mini].member.id],
        purpose="A miniature in the place of a model at full size.",
        overrides=MODELS[mini].overrides,
        nested=True,
    )
    for name, mini in NAMES.items()
}
run = CliRunner().invoke


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Fixtures with two small models at "full size", their floors and weights: (fixtures, cache)."""
    root, cache = tmp_path_factory.mktemp("fixtures") / "fixtures", tmp_path_factory.mktemp("cache")
    shutil.copytree(Fixtures().root, root, ignore=shutil.ignore_patterns("full"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_size, "FULL_SIZE", TINY)
        patch.setenv("GEMMA4_CACHE", str(cache))
        for name in TINY:
            where = ["--fixtures-dir", str(root)]
            for command in (
                ["export", "--model", name, *where],
                ["materialize", name],
                ["floors", "--model", name, "--profile", "f32", *where],
            ):
                ended = run(app, command)
                assert ended.exit_code == 0, ended.output
    return root, cache


@pytest.fixture
def places(tree: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    root, cache = tree
    monkeypatch.setenv("GEMMA4_CACHE", str(cache))
    return root, cache


def test_an_honest_port_reaches_l5(places: tuple[Path, Path]) -> None:
    ended = run(app, ["run", "--levels", "L5", "--fixtures-dir", str(places[0]), "--json"])
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert (told["level"], told["levels"]) == ("L5", {"L5": {"pass": 8}})
    assert told["models"] == ["experts-full", "tiny-full"]
    ended = run(app, ["verify", "--fixtures-dir", str(places[0])])
    assert ended.exit_code == 0, ended.output


class Mistaken(MlxImplAdapter):
    """Gives one row of one tap wrongly."""

    def __init__(self, tap: str, row: int, factor: float = 1.01) -> None:
        super().__init__()
        self._tap, self._row, self._factor = tap, row, factor

    def run(self, request: Request) -> dict[str, Any]:
        answer = super().run(request)
        value = answer[self._tap].copy()
        rows = np.moveaxis(value, text_graph().length_axis(self._tap), 0)
        if self._row < len(rows):
            rows[self._row] *= self._factor
        return answer | {self._tap: value}


@pytest.mark.parametrize("row", [0, 9, 88])
@pytest.mark.parametrize("tap", ["model.ple", "model.layers.3.output", "logits"])
def test_a_mistake_is_located(tap: str, row: int, places: tuple[Path, Path]) -> None:
    root, cache = places
    judge = Judge(at_full_size(Fixtures(root), cache / "full"), Mistaken(tap, row), "f32")
    verdict = judge.judge("forward/tiny-full/text-l89/no-cache")
    assert verdict.outcome == "fail"
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.name == tap


def test_the_command_that_asks_again(places: tuple[Path, Path]) -> None:
    session = Session("mlx_impl", "f32", root=places[0], full_size=materialised)
    command = session.reproduce("forward/tiny-full/text-l1/no-cache")
    assert command.startswith("gemma4-conformance run --levels L5 --impl mlx_impl --profile f32 --cases 'forward/tiny-")
    ended = run(app, shlex.split(command)[1:])
    assert ended.exit_code == 0, ended.output


PORT = """
from gemma4_contract.graph import text_graph
from conformance.adapters.mlx_impl.adapter import MlxImplAdapter

class Port(MlxImplAdapter):
    def run(self, request):
        answer = super().run(request)
        name = "model.layers.3.output"
        if name in answer and "-full/" in request.case:
            answer[name] = answer[name].copy()
            answer[name][:, {first}:] *= 1.01
        return answer
"""


@pytest.mark.parametrize(
    ("model", "first", "where"),
    [
        ("tiny-full", 9, "at row 9"),
        ("tiny-full", 8, "at row 8, where the window is full"),
        ("tiny-full", 40, "between rows 11 and 63"),
        ("experts-full", 9, "at row 9"),
    ],
)
def test_a_report_at_full_size_says_where_it_is_wrong(
    model: str, first: int, where: str, places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"wrong_from_{first}.py").write_text(PORT.format(first=first))
    options = ["--levels", "L5", "--fixtures-dir", str(places[0]), "--cases", f"forward/{model}/*"]
    report = tmp_path / "report"
    ended = run(app, ["run", "--impl", f"wrong_from_{first}:Port", *options, "--report", str(report)])
    assert ended.exit_code == 1, ended.output
    page = (report / "report.html").read_text()
    assert "level none" in page
    assert f'id="cell {model} output 3"' in page
    assert 'id="positions"' in page
    told = run(app, ["diagnose", str(report), "--fixtures-dir", str(places[0])])
    assert told.exit_code == 1
    lines = told.stdout.splitlines()
    assert lines[1:3] == ["first divergence: model.layers.3.output", f"  in forward/{model}/text-l89/no-cache"]
    assert f"  it begins {where}" in lines
    (row,) = re.findall(r"at \[0, (\d+), \d+\]", lines[3])
    assert first <= int(row) in full_size.stored_rows(TINY[model])
    assert lines[-2].startswith("looks like: known mistakes are not compared at full size")
    command = lines[-1].removeprefix("reproduce: ")
    ended = run(app, shlex.split(command)[1:])
    assert ended.exit_code == 1
    assert "first divergence: model.layers.3.output" in ended.stdout
    told = run(app, ["diagnose", str(report), "--fixtures-dir", str(places[0]), "--json"])
    assert json.loads(told.stdout)["mistake"] is None


def test_a_report_finds_the_goldens_of_one_s_own_again(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "wrong_on_its_own.py").write_text(PORT.format(first=9))
    checkpoint = places[1] / "full" / "tiny-full"
    named = exported(checkpoint, Path("goldens"), "f32")
    ended = run(
        app, ["run", "--impl", "wrong_on_its_own:Port", *named, "--cases", "*-l89/no-cache", "--report", "report"]
    )
    assert ended.exit_code == 1, ended.output
    monkeypatch.chdir(places[1])
    told = run(app, ["diagnose", str(tmp_path / "report")])
    assert told.exit_code == 1, told.output
    assert "it begins at row 9" in told.stdout
    assert f"--checkpoint {checkpoint} --goldens {tmp_path / 'goldens'}" in told.stdout
    assert run(app, ["report", str(tmp_path / "report")]).exit_code == 0
    shutil.rmtree(tmp_path / "goldens")
    with pytest.raises(FixtureError, match="got no goldens of tiny-full"):
        raise run(app, ["report", str(tmp_path / "report")]).exception or AssertionError


def test_a_report_on_other_goldens_is_refused(places: tuple[Path, Path], tmp_path: Path) -> None:
    root = tmp_path / "fixtures"
    shutil.copytree(places[0], root)
    options = ["--levels", "L5", "--cases", "forward/tiny-full/text-l1/*", "--report", str(tmp_path / "report")]
    ended = run(app, ["run", *options, "--fixtures-dir", str(root)])
    assert ended.exit_code == 0, ended.output
    assert "level L5 of tiny-full<" in (tmp_path / "report" / "report.html").read_text()
    floors = root / "full" / "floors" / "f32.json"
    floors.write_text(floors.read_text() + "\n")
    Fixtures(root).write_sums()
    with pytest.raises(FixtureError, match="got a report on other fixtures"):
        raise run(app, ["report", str(tmp_path / "report"), "--fixtures-dir", str(root)]).exception or AssertionError


@pytest.mark.parametrize("tap", ["model.embed_tokens", "model.layers.3.self_attn.q_rope", "model.layers.3.output"])
@pytest.mark.parametrize("factor", [1.01, np.nan, np.inf])
def test_a_row_that_is_not_stored_is_seen_in_the_whole(tap: str, factor: float, places: tuple[Path, Path]) -> None:
    root, cache = places
    judge = Judge(at_full_size(Fixtures(root), cache / "full"), Mistaken(tap, 40, factor), "f32")
    verdict = judge.judge("forward/tiny-full/text-l89/no-cache")
    assert verdict.outcome == "fail"
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.name == tap
    assert verdict.first_divergence.fault.startswith("what is stored is right, but the root mean square of all rows is")
    assert judge.judge("forward/tiny-full/text-l64/no-cache").outcome == "pass"  # of its first rows nothing is known


@pytest.mark.parametrize("tap", ["model.norm", "logits"])
def test_of_the_last_taps_the_stored_rows_alone_are_known(tap: str, places: tuple[Path, Path]) -> None:
    root, cache = places
    judge = Judge(at_full_size(Fixtures(root), cache / "full"), Mistaken(tap, 40), "f32")
    assert judge.judge("forward/tiny-full/text-l89/no-cache").outcome == "pass"


def test_another_shape_is_told_with_the_whole_s(places: tuple[Path, Path]) -> None:
    class Cut(MlxImplAdapter):
        def run(self, request: Request) -> dict[str, Any]:
            return {name: value[:, :5] for name, value in super().run(request).items()}

    root, cache = places
    verdict = Judge(at_full_size(Fixtures(root), cache / "full"), Cut(), "f32").judge(
        "forward/tiny-full/text-l64/no-cache"
    )
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.fault == "shape [1, 5, 48], expected [1, 64, 48] (B L D)"


OWNER = "forward/tiny-full/text-l89/no-cache"


def stored_floors(root: Path) -> Any:
    return json.loads((root / "full" / "floors" / "f32.json").read_text())


def test_floors_of_other_models_stay(places: tuple[Path, Path]) -> None:
    table = stored_floors(places[0])
    assert [case.split("/")[1] for case in table["floors"]] == ["experts-full", "tiny-full"]
    assert all(0 < rms < 1e-4 for name, (rms, _) in table["floors"][OWNER].items())
    assert {one["name"] for one in table["variants"]} >= {"oracle fused", "oracle sequential", "mlx_impl"}
    ratios = table["leave_one_family_out"]  # of the mixture none: families may choose other experts
    assert sorted(ratios) == ["tiny-full/mlx", "tiny-full/numpy", "tiny-full/torch"]
    assert all(0.3 < ratio < 3 for ratio in ratios.values())


def test_the_first_tokens_alone_raise_floors_and_lower_none(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_size, "FULL_SIZE", TINY)
    root = tmp_path / "fixtures"
    shutil.copytree(places[0], root)
    table = stored_floors(root)
    measured = table["floors"][OWNER]
    low, high = "model.layers.3.output", "model.layers.4.output"
    for name, factor in ((low, 1e-3), (high, 1e3)):
        measured[name] = [factor * figure for figure in measured[name]]
    path = root / "full" / "floors" / "f32.json"
    path.write_text(json.dumps(table))
    Fixtures(root).write_sums()
    named = ["--model", "tiny-full", "--profile", "f32", "--fixtures-dir", str(root)]
    ended = run(app, ["floors", *named, "--first-only"])
    assert ended.exit_code == 0, ended.output
    after = stored_floors(root)["floors"]
    assert all(figure > 100 * before for figure, before in zip(after[OWNER][low], measured[low], strict=True))
    assert after[OWNER][high] == measured[high]
    assert after["forward/experts-full/text-l89/no-cache"] == table["floors"]["forward/experts-full/text-l89/no-cache"]
    ended = run(app, ["floors", *named])  # measured anew, nothing of it is kept
    assert stored_floors(root) == stored_floors(places[0])


def test_a_row_alone_is_an_input_of_its_own(places: tuple[Path, Path]) -> None:
    """Ten rows of values near 1, one of which errs, and is a hundredth of the others."""
    full = at_full_size(Fixtures(places[0]), places[1] / "full")
    name = "model.layers.3.output"
    whole = Question.of(full, OWNER)
    whole = replace(whole, taps=[tap for tap in whole.taps if tap.name == name])
    golden = np.ones((1, 10, 4))
    golden[0, 7] = 0.01
    answer = golden.copy()
    answer[0, 7, 2] += 1e-5
    kept = [{name: Kept(whole=(1, 10, 4), indices={}, values=value, rms=1.0)} for value in (golden, answer)]
    table = ErrorTable()
    _take_rows(table, whole, kept[0], Variant(name="v", family="f", version=""), kept[1])
    worst = table.worst[OWNER, name]["f"]
    assert (worst.rms, worst.max) == pytest.approx((5e-4, 1e-3))


def test_without_weights_the_cure_is_told(tree: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEMMA4_CACHE", str(tmp_path))
    small, large = r"tiny-full \(0\.0 GB\)", r"experts-full \(0\.0 GB\)"
    with pytest.raises(FixtureError, match=f"gemma4-conformance materialize {small}; the others: {large}$"):
        Session("mlx_impl", "f32", root=tree[0], full_size=materialised)
    with pytest.raises(FixtureError, match=f"gemma4-conformance materialize {large}$"):
        Session("mlx_impl", "f32", pattern="forward/experts-full/*", root=tree[0], full_size=materialised)


def test_what_memory_does_not_hold_is_read_layer_by_layer(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just enough memory, and a byte too little."""
    root, cache = places
    full = at_full_size(Fixtures(root), cache / "full")
    for name in TINY:
        needed = held_bytes(full.model_dir(name)) / mlx_impl_adapter.SHARE
        for free, expected in ((needed + 1, False), (needed - 1, True)):
            monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
            adapter = MlxImplAdapter()
            verdict = Judge(full, adapter, "f32").judge(f"forward/{name}/text-l89/decode")
            assert verdict.outcome == "pass"
            layers = adapter._decoder(full.model_dir(name), "float32").model.layers
            assert {isinstance(layer, StreamedLayer) for layer in layers} == {expected}


# Experts: their choice is known at rows that are not stored.


@pytest.mark.parametrize(
    ("row", "margin", "outcome"),
    [
        (40, 0.0, "undecidable"),  # not stored, before stored rows: everything behind it in later layers may differ
        (40, 1.0, "fail"),  # at a wide margin no rounding chooses otherwise
        (88, 0.0, "undecidable"),
        (None, 0.0, "pass"),
    ],
)
def test_a_choice_at_a_row_that_is_not_stored(
    row: int | None, margin: float, outcome: str, places: tuple[Path, Path]
) -> None:
    """A port that chooses other experts there, and is wrong in all that attends to it."""

    class Chooses(MlxImplAdapter):
        def run(self, request: Request) -> dict[str, Any]:
            answer = super().run(request)
            combine = answer["model.layers.2.router.combine"].copy()
            if row is None:
                return answer
            combine[0, row] = np.roll(combine[0, row], 1)
            answer["model.layers.2.router.combine"] = combine
            for name in ("model.layers.3.self_attn.context", "model.layers.3.output", "logits"):
                answer[name] = answer[name] * np.where(np.arange(89) > row, 1.01, 1.0)[None, :, None]
            return answer

    root, cache = places
    full = at_full_size(Fixtures(root), cache / "full")
    question = Question.of(full, "forward/experts-full/text-l89/no-cache")
    experts = dict(question.stored.experts)
    margins = experts["model.layers.2.router.combine"].margins.copy()
    if row is not None:
        margins[0, row] = margin
    experts["model.layers.2.router.combine"] = replace(experts["model.layers.2.router.combine"], margins=margins)
    question = replace(question, stored=replace(question.stored, experts=experts))
    answer = Chooses().run(question.request("f32"))
    verdict = Examiner(full, "f32").examine(question, answer)
    assert verdict.outcome == outcome
    if outcome == "undecidable":
        assert f"undecidable from model.layers.2.router.combine, row {row} on" in verdict.note


def test_where_no_honest_pass_chose_alike_nothing_is_told(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in bf16 behind the first layers: taps without a floor are undecidable, and the case is not green."""
    root, cache = places
    full = at_full_size(Fixtures(root), cache / "full")
    question = Question.of(full, "forward/experts-full/text-l89/no-cache")
    table = full.floors("f32")
    measured = {name: floor for name, floor in table.floors[question.case.id].items() if name != "logits"}
    monkeypatch.setattr(full, "floors", lambda _: table.model_copy(update={"floors": {question.case.id: measured}}))
    answer = MlxImplAdapter().run(question.request("f32"))
    verdict = Examiner(full, "f32").examine(question, answer)
    assert verdict.outcome == "undecidable"
    assert verdict.note.startswith("undecidable from logits on")
    wrong = Examiner(full, "f32").examine(question, answer | {"model.norm": answer["model.norm"] * 1.01})
    assert wrong.outcome == "fail"


def test_the_choices_of_a_mixture_are_stored_for_every_row() -> None:
    full = at_full_size(Fixtures(), Path())
    whole, cut = (full.case(f"forward/26b-a4b-full/text-l{length}/no-cache") for length in (1105, 64))
    choices = full.choices(whole)
    assert len(choices) == 2 * 30
    chosen, margin = (choices[f"model.layers.29.router.combine{end}"] for end in ("", ".margin"))
    assert (chosen.shape, margin.shape) == ((1, 1105, 8), (1, 1105))
    assert (np.diff(chosen.astype(int), axis=-1) > 0).all()
    rows = full_size.stored_rows(full_size.FULL_SIZE["26b-a4b-full"])
    stored = full.golden(whole)["model.layers.29.router.combine"]
    assert np.array_equal(np.argwhere(stored[0])[:, 1].reshape(-1, 8), chosen[0, rows])
    assert full.choices(cut)["model.layers.29.router.combine"].shape == (1, 64, 8)
    assert full.choices(full.case("forward/31b-full/text-l1105/no-cache")) == {}


def test_margins_are_those_of_the_router_s_logits(places: tuple[Path, Path]) -> None:
    full = at_full_size(Fixtures(places[0]), Path())
    case = full.case("forward/experts-full/text-l89/no-cache")
    golden, choices, rows = full.golden(case), full.choices(case), full_size.stored_rows(TINY["experts-full"])
    routing = [name for name in choices if not name.endswith(".margin")]
    assert routing
    for name in routing:
        expected = routing_margins(golden[name.replace("combine", "proj")], golden[name])
        assert np.allclose(choices[f"{name}.margin"][:, rows], expected, atol=1e-5)


def test_both_derivations_make_the_golden(places: tuple[Path, Path], tmp_path: Path) -> None:
    root, cache = places
    case_id = "forward/experts-full/text-l89/no-cache"
    stored = root / "full" / "cases" / case_id
    named = ["--checkpoint", str(cache / "full" / "experts-full"), "--goldens"]
    for by, derivations in (("both", 2), ("transformers", 1)):
        ended = run(app, ["export", *named, str(tmp_path / by), "--by", by])
        assert ended.exit_code == 0, ended.output
        made = tmp_path / by / "cases" / case_id
        choices, again = (tensors.read(folder / "choices.safetensors") for folder in (stored, made))
        assert choices.keys() == again.keys()
        for name, value in choices.items():
            assert (
                np.allclose(again[name], value, rtol=1e-6, atol=1e-12)
                if "margin" in name
                else (np.array_equal(again[name], value))
            )
        provenance = json.loads((made / "case.json").read_text())["provenance"]
        assert len(provenance["derivations"]) == derivations
        assert provenance.get("agreement", 0) <= 1e-12
        golden, again = (tensors.read(folder / "expected_f32.safetensors") for folder in (stored, made))
        assert golden.keys() == again.keys()
        assert all(np.allclose(golden[name], again[name], rtol=1e-6, atol=1e-7) for name in golden)
        if by == "both":  # the oracle's, to the bit
            assert all(np.array_equal(golden[name], again[name]) for name in golden)


def test_derivations_that_differ_are_no_golden(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(*given: Any) -> dict[str, Kept]:
        made = right(*given)
        one = made["model.layers.3.output"]
        return made | {"model.layers.3.output": replace(one, values=one.values * (1 + 1e-11))}

    right = second.kept_by_transformers
    monkeypatch.setattr(second, "kept_by_transformers", shifted)
    named = ["--checkpoint", str(places[1] / "full" / "tiny-full"), "--goldens", str(tmp_path / "goldens")]
    ended = run(app, ["export", *named, "--by", "both"])
    assert ended.exit_code == 1
    (left,) = (tmp_path / "goldens").iterdir()
    assert left.suffix == ".state"  # the oracle's pass, to go on from


def test_a_pass_over_other_weights_is_not_gone_on_with(places: tuple[Path, Path], tmp_path: Path) -> None:
    """The checkpoint was replaced between an interruption and the next call: no layer of the old one counts."""
    folder, fixtures = tmp_path / "tiny-full", Fixtures(places[0])
    shutil.copytree(places[1] / "full" / "tiny-full", folder)
    held = dict(tensors.read(folder / "model.safetensors"))
    tensors.write(folder / "model.safetensors", held)  # so that the file that replaces it is of the same size

    def stop(*told: Any) -> None:
        if told[-1] == "layer 5":
            raise KeyboardInterrupt

    def export(root: Path, progress: Any = lambda *_: None) -> Any:
        exporter.export(own(folder), fixtures, root, root, progress)
        return tensors.read(root / "cases" / "forward/tiny-full/text-l89/no-cache" / "expected_f32.safetensors")

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "interrupted", stop)
    name = "model.language_model.layers.0.input_layernorm.weight"
    tensors.write(folder / "model.safetensors", held | {name: -held[name]})
    got, expected = export(tmp_path / "interrupted"), export(tmp_path / "fresh")
    assert all(np.array_equal(got[tap], value) for tap, value in expected.items())


def test_a_model_that_echoes_its_input_is_no_golden(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_echo", lambda *_: 0.2)
    before = (places[0] / "SHA256SUMS").read_bytes()
    assert run(app, ["export", "--model", "tiny-full", "--fixtures-dir", str(places[0])]).exit_code == 1
    assert (places[0] / "SHA256SUMS").read_bytes() == before


# A checkpoint of one's own.


def exported(checkpoint: Path, goldens: Path, *profiles: str) -> list[str]:
    """Goldens and floors of a checkpoint, and the options that name both."""
    named = ["--checkpoint", str(checkpoint), "--goldens", str(goldens)]
    for command in (["export"], *(["floors", "--profile", profile] for profile in profiles)):
        ended = run(app, [*command, *named])
        assert ended.exit_code == 0, ended.output
    return named


@pytest.mark.parametrize("name", TINY)
def test_goldens_of_a_materialised_checkpoint_are_the_rule_s(
    name: str, places: tuple[Path, Path], tmp_path: Path
) -> None:
    root, cache = places
    exported(cache / "full" / name, tmp_path)
    for case_id in (f"forward/{name}/text-l89/no-cache", f"forward/{name}/text-l64/no-cache"):
        for path in (root / "full" / "cases" / case_id).glob("*.safetensors"):
            assert (tmp_path / "cases" / case_id / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "SHA256SUMS").is_file()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("member", ["e2b", "26b-a4b"])
@pytest.mark.parametrize("bits", [None, pytest.param(4, marks=pytest.mark.slow)])
def test_a_port_is_judged_on_a_checkpoint_of_one_s_own(
    member: str, bits: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mlx_impl on the codes that MLX made, against the oracle on what they mean."""
    monkeypatch.setattr(full_size, "FULL_SIZE", {"wide-full": WIDE[member]})
    folder, goldens = tmp_path / "My_Gemma 4", tmp_path / "goldens"
    quantised = ["--quantize", str(bits)] if bits else []
    assert run(app, ["materialize", "wide-full", str(folder), *quantised]).exit_code == 0
    named = exported(folder, goldens, "f32")
    ended = run(app, ["run", *named, "--json"])
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)["levels"] == {"L5": {"pass": 4}}
    ended = run(app, ["run", *named, "--jobs", "2", "--cases", "*-l1/*"])
    assert ended.exit_code == 0, ended.output

    session = Session("mlx_impl", "f32", full_size=opened(folder, goldens))
    command = session.reproduce("forward/my-gemma-4/text-l1/no-cache")
    ended = run(app, shlex.split(command)[1:])
    assert ended.exit_code == 0, ended.output


def test_what_was_made_is_told(places: tuple[Path, Path], tmp_path: Path) -> None:
    named = ["--checkpoint", str(places[1] / "full" / "tiny-full"), "--goldens", str(tmp_path)]
    ended = run(app, ["export", *named])
    assert re.fullmatch(rf"{tmp_path}/cases/forward/tiny-full: 0\.\d\d MB\n", ended.stdout)
    ended = run(app, ["floors", *named])
    families = re.findall(r"^without the (\w+) family the floors would be exceeded .* times", ended.stdout, re.M)
    assert sorted(families) == ["mlx", "numpy", "torch"]


def test_what_is_missing_of_one_s_own_is_told_with_its_cure(places: tuple[Path, Path], tmp_path: Path) -> None:
    folder = places[1] / "full" / "tiny-full"
    named = ["--checkpoint", str(folder), "--goldens", str(tmp_path)]
    for options, said in (
        (named[:2], "--checkpoint, --goldens: got one of them, expected both"),
        (named, f"{tmp_path}: got no goldens of tiny-full, expected some; make them: gemma4-conformance export"),
        ([*named, "--levels", "L1"], "--levels: got L1 with --checkpoint, expected L5"),
    ):
        with pytest.raises((BadOption, FixtureError)) as told:
            raise run(app, ["run", *options]).exception or AssertionError
        assert str(told.value).startswith(said)
    exported(folder, tmp_path)
    cure = "measure them: gemma4-conformance floors --checkpoint .* --goldens .* --profile f32"
    with pytest.raises(FixtureError, match=cure):
        Session("mlx_impl", "f32", full_size=opened(folder, tmp_path))
    other = tmp_path / "tiny-full"
    shutil.copytree(places[1] / "full" / "experts-full", other)
    with pytest.raises(FixtureError, match=r"config\.json: got another, expected the configuration"):
        Session("mlx_impl", "f32", full_size=opened(other, tmp_path))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["export", "--model", "e3b-full"], "model: got e3b-full, expected one of e2b-full, e4b-full"),
        (["export", "--by", "both"], "--by: got both without a model, expected it with --model or --checkpoint"),
        (["export", "--checkpoint", str(Fixtures().root / "models" / "e2b-mini")], "--checkpoint, --goldens: got one"),
        (
            ["export", "--checkpoint", "none", "--goldens", "g"],
            "none: got no config.json in it, expected the folder",
        ),
        (
            ["export", "--checkpoint", "none", "--goldens", "g", "--model", "e2b-full"],
            "--checkpoint, --model: got both",
        ),
        (["floors", "--first-only"], "--first-only: got it without a model, expected it with --model or --checkpoint"),
        (["materialize", "e2b-mini"], "model: got e2b-mini, expected one of"),
        (
            ["materialize", "e2b-full", "--quantize", "4", "--dtype", "f32"],
            "--dtype: got f32 with --quantize",
        ),
        (["materialize", "e2b-full", "--quantize", "7"], "--quantize: got 7, expected one of 2, 3, 4"),
        (["materialize", "e2b-full", str(Fixtures().root / "models" / "e2b-mini")], "config.json: got another"),
        (["run", "--levels", "L0,L5"], "--levels: got L0,L5, expected L5 alone"),
        (["run", "--levels", "L0-L5"], "--levels: got L0-L5, expected L5 alone"),
    ],
)
def test_bad_input_is_one_line(command: list[str], said: str) -> None:
    ended = run_command(*command)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_goldens_hold_what_only_size_shows() -> None:
    """Rows behind 2^31 in the table, both sides of the window's edge, and channels of the whole head."""
    full = at_full_size(Fixtures(), Path())
    case = full.case("forward/e2b-full/text-l593/no-cache")
    picks = {tap.name: tap.picks for tap in case.taps}
    rows = picks["model.ple"].taken["L"]  # type: ignore[union-attr]
    assert isinstance(rows, list)
    ids = full.inputs(case)["ids"][0]
    assert max(int(ids[row]) * 35 * 256 for row in rows) > 2**31
    assert {511, 512} <= set(rows)
    head = picks["model.layers.4.self_attn.q_rope"]
    assert head is not None
    assert head.whole[-1] == 512
    assert max(head.indices(["B", "H", "L", "E"])[-1]) > 500
    assert np.isfinite(full.golden(case)["logits"]).all()


# What only size shows, put into the oracle: E2B's embedding and first layers take seconds.


def wrapped_index(patch: pytest.MonkeyPatch) -> None:
    """The offset into the table of per-layer embeddings in 32 bits."""

    def elements(self: RuleMatrix, start: int, stop: int) -> Any:
        wrapped = (start + 2**31) % 2**32 - 2**31
        return right(self, wrapped % 2**31, wrapped % 2**31 + stop - start)

    right = RuleMatrix._elements
    patch.setattr(RuleMatrix, "_elements", elements)


class WideWindow(TextConfig):
    """A window of 1,024, as the larger members have."""

    def window_of(self, layer: int) -> int | None:
        return 1024 if self.is_sliding(layer) else None


class HalfAHead(Ops):
    """Kernels for heads of up to 256 channels: of 512 only the first half meets."""

    def attention_scores(self, q: Any, k: Any) -> Any:
        return super().attention_scores(first_half(q), first_half(k))


def first_half(x: Any) -> Any:
    return np.where(np.arange(x.shape[-1]) < 256, x, 0)


@pytest.mark.parametrize(
    ("oracle", "patches", "layers", "first"),
    [
        pytest.param(ORACLE, [], 5, None, marks=pytest.mark.slow),  # the control
        (ORACLE, [wrapped_index], 1, "model.ple"),
        (Oracle(config=WideWindow), [], 1, "model.layers.0.self_attn.context"),
        pytest.param(Oracle(ops=HalfAHead), [], 5, "model.layers.4.self_attn.context", marks=pytest.mark.slow),
    ],
)
def test_mistakes_that_miniatures_cannot_show(
    oracle: Oracle, patches: list[Any], layers: int, first: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = at_full_size(Fixtures(), Path())
    question = Question.of(full, "forward/e2b-full/text-l593/no-cache")
    model = full_size.FULL_SIZE["e2b-full"]
    for patch in patches:
        patch(monkeypatch)

    def stop(*told: Any) -> None:
        if told[-1] == f"layer {layers}":
            raise KeyboardInterrupt

    config = oracle.config.from_dict(model.text_config)
    decoder = oracle.decoder(config, by_rule(model, F32.dtype), streamed(F32), oracle.ops)
    keeper = Keeper(config=model.config, length=593, rows=full_size.stored_rows(model))
    with pytest.raises(KeyboardInterrupt):
        forward.run(decoder, question.inputs["ids"], keeper, stop)
    verdict = Examiner(full, "f32").examine(question, {name: one.values for name, one in keeper.kept.items()})
    divergence = verdict.first_divergence
    assert (divergence.name if divergence else None) == first
    assert sum(tap.status == "pass" for tap in verdict.taps) >= (1 if first else 2 + 5 * layers)
