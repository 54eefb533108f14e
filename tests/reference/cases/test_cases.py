"""The cases before they have goldens: ids, pointers, inputs, plans, and what they say they hunt."""

import re
from collections import Counter
from functools import cache

import numpy as np

from gemma4_contract import Fixtures, Plan
from gemma4_contract.subgraph import SUBGRAPH_KINDS
from reference import weights
from reference.cases import Draft, all_drafts
from reference.cases.forward import padded_inputs
from reference.cases.hunts import hunted_by, reported
from reference.layouts import LAYOUTS
from reference.models import MODELS, Model
from reference.mutants import MUTANTS
from reference.oracle.answers import MODULE_KINDS

ID = re.compile(r"[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)+")


@cache
def drafts(seed: int = 0) -> dict[str, Draft]:
    found = list(all_drafts(seed))
    counts = Counter(draft.id for draft in found)
    assert max(counts.values()) == 1, counts.most_common(3)
    return {draft.id: draft for draft in found}


def weights_of(draft: Draft) -> Model:
    """The model whose weights a draft's model or layout holds."""
    assert draft.model is not None
    return LAYOUTS[draft.model].weights_of if draft.model in LAYOUTS else MODELS[draft.model]


def test_ids_say_what_the_cases_are() -> None:
    for draft in drafts().values():
        assert ID.fullmatch(draft.id), draft.id
        parts = draft.id.split("/")
        if draft.kind in MODULE_KINDS:
            assert parts[:2] == ["module", draft.kind.replace("_", "-")]
            assert len(parts) == 3
            assert draft.model is None
        else:
            assert parts[:2] == [draft.kind, draft.model]
            assert draft.model in {**MODELS, **LAYOUTS}
        if draft.kind == "forward":
            assert re.fullmatch(r"[a-z]+-l(\d+)", parts[2])
            assert int(parts[2].rsplit("-l")[1]) == draft.inputs["ids"].shape[1]
        assert draft.purpose.endswith(".")
        assert "\n" not in draft.purpose


def test_every_kind_and_every_kind_of_layer_is_asked() -> None:
    kinds = Counter(draft.kind for draft in drafts().values())
    assert kinds.keys() == {"forward", *SUBGRAPH_KINDS, *MODULE_KINDS}
    layers = {draft.id for draft in drafts().values() if draft.kind == "layer"}
    assert {f"layer/e2b-mini/{name}" for name in ("sliding-own", "full-own", "sliding-shared", "full-shared-hot")} == {
        name for name in layers if "e2b" in name
    }
    assert {name.split("/")[1] for name in layers} == {model.id for model in MODELS.values() if model.nested}


def test_lengths_stand_around_the_window_and_plans_end_off_the_grid() -> None:
    for model in MODELS.values():
        lengths = {
            draft.inputs["ids"].shape[1]
            for draft in drafts().values()
            if draft.kind == "forward" and draft.model == model.id
        }
        assert lengths == ({1, 2, 7, 8, 9, 19} if model.nested else {19})
    for draft in drafts().values():
        name = draft.id.rsplit("/", 1)[1]
        if draft.kind == "forward" and name.startswith("chunks-"):
            assert draft.plan is not None
            assert draft.plan.steps is not None
            size = int(name.removeprefix("chunks-"))
            assert set(draft.plan.steps[:-1]) == {size}
            assert 0 < draft.plan.steps[-1] < size


def test_plans_add_up_to_the_tokens_of_the_case() -> None:
    for draft in drafts().values():
        assert (draft.plan is not None) == (draft.kind == "forward")
        if draft.plan is None:
            continue
        batch, length = draft.inputs["ids"].shape
        assert draft.plan.steps is None or sum(draft.plan.steps) == length, draft.id
        pads = draft.plan.left_pad
        assert batch == (1 if pads is None else len(pads))
        assert ("valid" in draft.inputs) == (pads is not None)
        assert pads is None or max(pads) < length


def test_pointers_lead_to_an_owner_whose_rows_are_the_same_tokens() -> None:
    for draft in drafts().values():
        assert draft.owner == (draft.pointer[0] if draft.pointer else draft.id)
        if draft.pointer is None:
            continue
        owner, rows = drafts()[draft.pointer[0]], draft.pointer[1]
        assert owner.pointer is None
        assert owner.model == weights_of(draft).id
        assert owner.taps == draft.taps
        assert rows == draft.inputs["ids"].shape[1] <= owner.inputs["ids"].shape[1]
        for row, pad in enumerate((draft.plan and draft.plan.left_pad) or [0]):
            real = rows - pad
            assert draft.inputs["ids"][row, pad:].tolist() == owner.inputs["ids"][0, :real].tolist()
            assert draft.inputs["positions"][row, pad:].tolist() == list(range(real))
            assert not draft.inputs["ids"][row, :pad].any()
            assert not draft.inputs["positions"][row, :pad].any()


def test_each_model_has_one_golden_and_others_point_to_it() -> None:
    owners = Counter(draft.model for draft in drafts().values() if draft.kind == "forward" and draft.pointer is None)
    assert owners == Counter(MODELS.keys())
    assert all(draft.pointer is None for draft in drafts().values() if draft.kind != "forward")


def test_each_layout_is_asked_once_for_its_model_s_golden() -> None:
    layouts = {draft.id: draft for draft in drafts().values() if draft.model in LAYOUTS}
    assert layouts.keys() == {f"forward/{layout}/uniform-l19/no-cache" for layout in LAYOUTS}
    for draft in layouts.values():
        golden = f"forward/{weights_of(draft).id}/uniform-l19/no-cache"
        assert (draft.pointer, draft.plan) == ((golden, 19), Plan(steps=None))
        assert draft.inputs.keys() == drafts()[golden].inputs.keys()


def test_padded_rows_by_hand() -> None:
    got = padded_inputs(np.array([[5, 6, 7]], np.int32), [0, 2])
    assert {name: value.tolist() for name, value in got.items()} == {
        "ids": [[5, 6, 7], [0, 0, 5]],
        "positions": [[0, 1, 2], [0, 0, 0]],
        "valid": [[1, 1, 1], [0, 0, 1]],
    }
    assert {value.dtype.name for value in got.values()} == {"int32", "uint8"}


# `linear/full-precision` asks whether a product keeps all 24 bits of a float32, and `long-sum` how a sum is
# accumulated: bf16 terms have so few bits that 4,096 of them add up exactly in float32, whatever the order.
FULL_PRECISION = {"module/linear/full-precision", "module/long-sum/positive"}


def test_float_inputs_are_f32_and_held_by_bf16() -> None:
    exceptions = set()
    for draft in drafts().values():
        for name, x in draft.inputs.items():
            if x.dtype.kind == "f":
                assert x.dtype == np.float32, (draft.id, name)
                if not np.array_equal(weights.bf16(x), x):
                    exceptions.add(draft.id)
            else:
                assert x.dtype == (np.uint8 if name in ("valid", "mask") else np.int32), (draft.id, name)
    assert exceptions == FULL_PRECISION


def test_inputs_reach_what_their_cases_are_for() -> None:
    def x(case_id: str, name: str = "x") -> np.ndarray:
        return drafts()[case_id].inputs[name]

    near_eps = np.mean(x("module/rms-norm/near-eps").astype(float) ** 2)
    assert 0.5e-6 < near_eps < 2e-6
    assert (x("module/rms-norm/large") ** 2).max() > 65504  # overflows f16
    hot, keys = x("module/attention-core/hot", "q")[0], x("module/attention-core/hot", "k")[0]
    assert 20 < np.abs(np.einsum("hle,hse->hls", hot, keys.repeat(2, 0))).max() < 35
    assert (x("module/long-sum/positive") >= 0).all()
    assert np.abs(x("module/softcap/cap-30")).max() == 120
    combine = x("module/experts/fused", "combine")
    assert ((combine != 0).sum(-1) == 8).all()
    ring = drafts()["module/attention-core/ring"].inputs["k_positions"][0]
    assert sorted(ring.tolist()) == list(range(3, 11)) != ring.tolist()


def test_the_cases_that_hunt_are_cases() -> None:
    for mutant in MUTANTS.values():
        assert set(mutant.caught_by) - drafts().keys() == set()
        assert len(set(mutant.caught_by)) == len(mutant.caught_by)
    assert [mutant.id for mutant in MUTANTS.values() if not mutant.caught_by] == ["router-softmax-over-chosen"]


def test_a_case_tells_the_reports_of_what_it_hunts_once() -> None:
    hunted = hunted_by("module/inv-freq/e2b-full")
    assert "prop-rope-denominator" in hunted
    links = reported(hunted)
    assert set(links) == {url for mutant_id in hunted for url in MUTANTS[mutant_id].urls}
    assert len(set(links)) == len(links)


# Inputs that are no draw: places, masks, and the x of cases that ask a grid or zeros.
NO_DRAW = {"positions", "q_positions", "k_positions", "valid"}
NO_DRAW_OF_X = ("module/gelu-tanh/", "module/softcap/", "module/exp-tanh/", "module/rms-norm/zeros")


def test_other_seeds_ask_the_same_with_other_inputs() -> None:
    first, second = drafts(), drafts(1)
    assert first.keys() == second.keys()
    for case_id, draft in first.items():
        other = second[case_id]
        assert (draft.params, draft.plan, draft.taps) == (other.params, other.plan, other.taps)
        assert draft.inputs.keys() == other.inputs.keys()
        for name, x in draft.inputs.items():
            assert (x.shape, x.dtype) == (other.inputs[name].shape, other.inputs[name].dtype), (case_id, name)
            if "-l1/" not in case_id:  # one token of few may well be the same
                still = (
                    name in NO_DRAW
                    or (name == "x" and case_id.startswith(NO_DRAW_OF_X))
                    or draft.exact
                    or draft.advice is not None
                )
                assert np.array_equal(x, other.inputs[name]) == still, (case_id, name)


def test_stored_cases_are_the_drafts() -> None:
    fixtures = Fixtures()
    assert set(fixtures.case_ids) == drafts().keys()
    for case in fixtures.cases():
        draft = drafts()[case.id]
        assert (case.kind, case.model, case.purpose, case.plan) == (draft.kind, draft.model, draft.purpose, draft.plan)
        assert (case.hunts, case.links) == (hunted_by(draft.id), reported(hunted_by(draft.id)))
        assert case.profiles == list(draft.profiles)
        stored = fixtures.inputs(case)
        assert stored.keys() == draft.inputs.keys()
        assert all(np.array_equal(stored[name], x) for name, x in draft.inputs.items())
