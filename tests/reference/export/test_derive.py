"""A golden is accepted only if two derivations agree on every tap."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from gemma4_contract import Fixtures  # noqa: E402 (after importorskip)
from reference.cases import Draft  # noqa: E402 (after importorskip)
from reference.export import agreement, derive, writer  # noqa: E402 (after importorskip)
from reference.export.errors import ExportError  # noqa: E402 (after importorskip)
from reference.layouts import LAYOUTS  # noqa: E402 (after importorskip)
from tests.support.exports import GOLDEN, LAYOUT, MODEL, NORM, PADDED, RING, Taps, drafts, write  # noqa: E402 (after importorskip)


def test_both_derivations_give_every_tap_of_every_kind_of_case() -> None:
    policy, seen = Fixtures().policy, set()
    for draft in drafts().values():
        if draft.model not in (None, MODEL, "31b-mini") or draft.pointer is not None:
            continue
        names = [tap.name for tap in draft.taps]
        by_oracle = derive.by_oracle(draft)
        assert list(by_oracle) == names, draft.id
        if draft.kind == "subgraph":
            continue  # tests/reference/test_subgraphs.py: there transformers gives all but a few
        for lifted in (True, False):
            theirs = derive.by_transformers(draft, lifted=lifted)
            assert theirs.keys() == set(names), draft.id
            # Left in float32, the frequency of the fastest pair turns a token at 131071 by a thousandth of a radian.
            limit = agreement.agreement_limit(policy, draft.inputs.get("positions")) if lifted else 2e-3
            figure, tap = agreement.worst_difference(theirs, by_oracle)
            assert figure <= limit, (draft.id, tap, figure)
        seen.add(draft.kind)
    assert seen == {draft.kind for draft in drafts().values()} - {"attention", "subgraph"}


def perturbed(tap: str, factor: float, rows: slice = slice(None)) -> Callable[..., Taps]:
    """transformers with one tap off by a factor, in some rows of its batch and length only."""

    def by_transformers(draft: Draft, *, lifted: bool) -> Taps:
        taps: Taps = derive.by_transformers(draft, lifted=lifted)
        if lifted:
            taps[tap] = taps[tap].copy()
            taps[tap][-1:][..., rows, :] *= factor
        return taps

    return by_transformers


PLANTED = {
    NORM: "y",
    RING: "context",
    GOLDEN: "model.layers.1.mlp.act",
    "layer/31b-mini/full-own-hot": "model.layers.5.output",
    PADDED: "logits.raw",
}


@pytest.mark.parametrize(("case_id", "tap"), PLANTED.items(), ids=PLANTED.keys())
def test_a_planted_difference_is_refused(
    case_id: str, tap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = writer.Writer(tmp_path, Fixtures().policy)
    if case_id == PADDED:
        made.write(drafts()[GOLDEN])
    monkeypatch.setattr(writer, "by_transformers", perturbed(tap, 1 + 1e-9))
    with pytest.raises(ExportError) as caught:
        made.write(drafts()[case_id])
    text = str(caught.value)
    assert text.startswith(f"{case_id}: transformers")
    assert f" at {tap}, expected at most " in text
    assert "\n" not in text
    assert not (tmp_path / "cases" / case_id).exists()
    monkeypatch.setattr(writer, "by_transformers", perturbed(tap, 1 + 1e-14))  # rounding is no difference
    made.write(drafts()[case_id])
    assert (tmp_path / "cases" / case_id / "case.json").exists()


def test_a_difference_at_pads_is_none_and_one_behind_them_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = writer.Writer(tmp_path, Fixtures().policy)
    made.write(drafts()[GOLDEN])
    monkeypatch.setattr(writer, "by_transformers", perturbed("logits", 5.0, slice(0, 12)))  # the last row's pads
    made.write(drafts()[PADDED])
    monkeypatch.setattr(writer, "by_transformers", perturbed("logits", 1 + 1e-9, slice(12, 13)))
    with pytest.raises(ExportError, match=f"{PADDED}: transformers under this plan and the golden differ"):
        made.write(drafts()[PADDED])


def test_a_layout_whose_files_say_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = writer.Writer(tmp_path, Fixtures().policy)
    made.write(drafts()[GOLDEN])
    draft = drafts()[f"forward/{LAYOUT}/uniform-l19/no-cache"]
    layout = LAYOUTS[LAYOUT]
    another = replace(layout, changes={**layout.changes, "final_logit_softcapping": 13.0})
    derive._oracle.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(derive, "LAYOUTS", {LAYOUT: another})
        with pytest.raises(ExportError, match=f"^{draft.id}: the oracle under this plan .* at logits, expected"):
            made.write(draft)
    derive._oracle.cache_clear()
    made.write(draft)
    assert Fixtures(tmp_path).case(draft.id).model == LAYOUT


def test_an_oracle_that_depends_on_the_plan_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = writer.Writer(tmp_path, Fixtures().policy)
    made.write(drafts()[GOLDEN])

    def by_oracle(draft: Draft) -> Taps:
        taps: Taps = derive.by_oracle(draft)
        return taps | {"logits": taps["logits"] * (1 + 1e-9)}

    monkeypatch.setattr(writer, "by_oracle", by_oracle)
    case_id = f"forward/{MODEL}/uniform-l19/tokens"
    with pytest.raises(ExportError, match=f"{case_id}: the oracle under this plan and the golden differ .* at logits,"):
        made.write(drafts()[case_id])


@pytest.mark.parametrize("bad", ["nan", "shape", "missing"])
def test_no_tap_escapes_the_comparison(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tap = "model.layers.1.residual_2"  # neither first nor last of the taps

    def by_transformers(draft: Draft, *, lifted: bool) -> Taps:
        taps: Taps = derive.by_transformers(draft, lifted=lifted)
        if bad == "missing":
            return {name: value for name, value in taps.items() if name != tap}
        return taps | {tap: taps[tap] * np.nan if bad == "nan" else taps[tap][:, :-1]}

    monkeypatch.setattr(writer, "by_transformers", by_transformers)
    with pytest.raises(ExportError, match=f"^{GOLDEN}: transformers, lifted.* {tap}"):
        write(tmp_path, GOLDEN)


def test_relative_rms_by_hand() -> None:
    a, b = np.array([1.0, 2.0, 3.0, 9.0]), np.array([1.0, 2.0, 4.0, 0.0])
    mask = np.array([True, True, True, False])
    assert agreement.relative_rms(a, b, mask) == pytest.approx(np.sqrt(1 / 21))
    assert agreement.relative_rms(b, b) == 0.0
    assert agreement.relative_rms(np.zeros(3), np.zeros(3)) == 0.0
    assert agreement.relative_rms(np.array([1e-300, 1.0]), np.zeros(2)) == float("inf")
    assert agreement.worst_difference({"x": a, "y": b}, {"x": b, "y": b, "z": b}) == (agreement.relative_rms(a, b), "x")
    assert agreement.worst_difference({"x": a[:3]}, {"x": b}) == (float("inf"), "x")
    with pytest.raises(ValueError, match="no tap in common"):
        agreement.worst_difference({"x": a}, {"y": b})


def test_limit_of_agreement_grows_with_the_position() -> None:
    policy = Fixtures().policy
    assert agreement.agreement_limit(policy, None) == 1e-12
    assert agreement.agreement_limit(policy, np.array([[0, 4096]])) == 1e-12
    assert agreement.agreement_limit(policy, np.array([[131071]])) == 131071 * 2.0**-52


def test_torch_runs_on_one_thread_for_a_while_only() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with derive.single_threaded():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
