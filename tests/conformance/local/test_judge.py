"""Local judgement: answers of the oracle with chosen taps made wrong on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest

from conformance.adapters.oracle import OracleAdapter
from conformance.judging.compare import TapVerdict
from conformance.judging.examine import CaseVerdict, Examiner
from conformance.judging.question import Question
from conformance.local.judge import LocalJudge
from gemma4_contract.selection import spread_mask
from gemma4_contract.tensors import Array
from reference.oracle.arithmetic import PROFILES
from reference.oracle.oracle import ORACLE
from tests.support.installed import FIXTURES

E2B, MOE = "forward/e2b-mini/uniform-l19/no-cache", "forward/26b-a4b-mini/uniform-l19/no-cache"
PADDED = "forward/e2b-mini/uniform-l19/padded-no-cache"
Change = Callable[[Array], Array]


def at(layer: int, tap: str) -> str:
    return f"model.layers.{layer}.{tap}"


@cache
def local_judge(profile: str) -> LocalJudge:
    return LocalJudge(FIXTURES, profile)


def answered(case: str, changes: Mapping[str, Change], profile: str = "f32") -> dict[str, Array]:
    """The oracle's answer without a cache; it shows a changed tap, and goes on with it."""
    question, taken = Question.of(FIXTURES, case), dict[str, Array]()
    assert question.model_dir is not None

    def record(name: str, value: Array) -> Array:
        taken[name] = changes[name](value).astype(value.dtype) if name in changes else value
        return taken[name]

    decoder = ORACLE.load(question.model_dir, PROFILES[profile])
    decoder.forward(question.inputs["ids"], question.inputs["positions"], question.inputs.get("valid"), record=record)
    return {name: taken[name] for name in question.golden}


def judged(case: str, answer: Mapping[str, Array], profile: str = "f32") -> dict[str, TapVerdict]:
    return {tap.name: tap for tap in local_judge(profile).judge(Question.of(FIXTURES, case), answer)}


def failing(verdicts: Mapping[str, TapVerdict]) -> list[str]:
    return [name for name, tap in verdicts.items() if tap.status == "fail"]


def examined(case: str, answer: Mapping[str, Array], profile: str) -> CaseVerdict:
    return Examiner(FIXTURES, profile, local_judge(profile)).examine(Question.of(FIXTURES, case), answer)


def half_more(value: Array) -> Array:
    return value * 1.5


@pytest.mark.parametrize(
    "profile", ["f32", "bf16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("f64", "f16"))]
)
@pytest.mark.parametrize("plan", ["no-cache", "tokens", "padded", "chunks-5"])
@pytest.mark.parametrize("model", ["e2b-mini", "26b-a4b-mini"])
def test_an_honest_answer_passes_at_every_tap(model: str, plan: str, profile: str) -> None:
    """Experts that rounding chose otherwise included: the choice must follow the answer's own logits."""
    question = Question.of(FIXTURES, f"forward/{model}/uniform-l19/{plan}")
    answer = OracleAdapter("split").run(question.request(profile))
    verdicts = local_judge(profile).judge(question, answer)
    assert [tap.name for tap in verdicts] == [tap.name for tap in question.taps]
    assert {tap.status for tap in verdicts} == {"pass"}
    assert {tap.through for tap in verdicts} == {0}


@pytest.mark.parametrize("case", ["layer/e2b-mini/sliding-shared", "attention/12b-mini/full-own"])
def test_cases_of_a_layer_are_judged_too(case: str) -> None:
    question = Question.of(FIXTURES, case)
    answer = OracleAdapter("split").run(question.request("bf16"))
    assert {tap.status for tap in local_judge("bf16").judge(question, answer)} == {"pass"}
    last = question.taps[-1].name
    assert failing(judged(case, {**answer, last: answer[last] * 2}, "bf16")) == [last]


def test_several_mistakes_are_found_where_they_are_and_nowhere_else() -> None:
    wrong = [at(1, "self_attn.probs"), at(4, "mlp.act"), at(7, "ple_gated"), "logits.raw"]
    assert failing(judged(E2B, answered(E2B, dict.fromkeys(wrong, half_more)))) == wrong


def test_it_is_as_sharp_in_the_last_layer_as_in_the_first() -> None:
    """Three per cent, in bf16: the goldens leave ten times as much room at this depth."""
    tap = at(9, "post_feedforward_layernorm")
    verdict = examined(E2B, answered(E2B, {tap: lambda x: x * 1.03}, "bf16"), "bf16")
    assert (verdict.outcome, verdict.judgement) == ("fail", "local")
    assert [one.name for one in verdict.wrong_by_themselves] == [tap]
    assert [one.name for one in verdict.taps if one.status == "fail"] == []
    assert verdict.first_divergence == verdict.wrong_by_themselves[0]


def test_a_wrong_parent_that_the_rest_follows_is_left_to_the_goldens() -> None:
    """Other ids make an answer that hangs together, but for the tap that is made of ids."""
    question = Question.of(FIXTURES, E2B)
    other = Question.of(FIXTURES, "forward/e2b-mini/uniform-l9/no-cache").inputs["ids"]
    ids = question.inputs["ids"].copy()
    ids[:, :3] = other[:, 4:7]
    assert question.model_dir is not None
    taken = dict[str, Array]()

    def record(name: str, value: Array) -> Array:
        taken[name] = value
        return value

    ORACLE.load(question.model_dir, PROFILES["f32"]).forward(ids, question.inputs["positions"], record=record)
    verdict = examined(E2B, {name: taken[name] for name in question.golden}, "f32")
    assert verdict.judgement == "both"
    made_of_ids = ["model.embed_tokens", "model.embed_tokens_per_layer"]
    assert [one.name for one in verdict.wrong_by_themselves] == made_of_ids
    assert len([one for one in verdict.taps if one.status == "fail"]) > 200


# What is not offered, or of no use


def test_without_taps_there_is_nothing_to_judge_by() -> None:
    answer = answered(E2B, {})
    assert judged(E2B, {"logits": answer["logits"]}) == {}
    assert judged(E2B, {}) == {}
    assert examined(E2B, {"logits": answer["logits"]}, "f32").judgement == "chained"


def test_of_a_sub_graph_every_parent_is_a_golden_already() -> None:
    question = Question.of(FIXTURES, "subgraph/e2b-mini/full-own")
    assert local_judge("f32").judge(question, question.golden) == ()


def test_what_is_not_offered_is_bridged_and_counted() -> None:
    answer = answered(E2B, {})
    left_out = {at(3, "mlp.act"), at(3, "pre_feedforward_layernorm")}
    verdicts = judged(E2B, {name: x for name, x in answer.items() if name not in left_out})
    assert left_out.isdisjoint(verdicts)
    assert {name: tap.through for name, tap in verdicts.items() if tap.through} == {at(3, "mlp.down_proj"): 2}
    assert failing(verdicts) == []
    wider, narrow = verdicts[at(3, "mlp.down_proj")].tolerance, verdicts[at(2, "mlp.down_proj")].tolerance
    assert wider is not None
    assert narrow is not None
    assert wider.rms > narrow.rms


def test_a_mistake_beyond_a_bridge_is_seen_at_its_end() -> None:
    answer = answered(E2B, {at(3, "mlp.act"): half_more})
    del answer[at(3, "mlp.act")]
    assert failing(judged(E2B, answer)) == [at(3, "mlp.down_proj")]


def test_taps_that_only_one_plan_asks_are_no_bridge() -> None:
    reads = {at(layer, f"self_attn.{tap}") for layer in range(10) for tap in ("k_read", "v_read", "probs")}
    answer = {name: x for name, x in answered(E2B, {}).items() if name not in reads}
    assert {tap.through for tap in judged(E2B, answer).values()} == {0}


@pytest.mark.parametrize("broken", [lambda x: x * np.nan, lambda x: x[..., :-1]], ids=["not finite", "another shape"])
def test_what_cannot_be_gone_on_with_accuses_no_other_tap(broken: Change) -> None:
    answer = answered(E2B, {})
    first, second = at(3, "pre_feedforward_layernorm"), at(3, "mlp.act")
    verdicts = judged(E2B, {**answer, first: broken(answer[first]), second: broken(answer[second])})
    assert failing(verdicts) == [first]
    assert second not in verdicts  # what it was computed from is broken already
    assert verdicts[at(3, "mlp.down_proj")].through == 2


def test_what_stands_at_pads_is_nobody_s_business() -> None:
    answer, question = answered(PADDED, {}), Question.of(FIXTURES, PADDED)
    pads = question.inputs["valid"] == 0
    assert pads.any()
    for spec in question.taps:
        real = spread_mask(~pads, spec.axes, answer[spec.name].shape)
        assert real is not None
        answer[spec.name] = np.where(real, answer[spec.name], np.nan)
    verdicts = judged(PADDED, answer)
    assert failing(verdicts) == []
    assert list(verdicts) == [spec.name for spec in question.taps]


# Experts


def swapped(chosen_rank: int, other_rank: int) -> Change:
    """Weights of experts in which the expert of one rank gives its place to another, at every row."""

    def change(combine: Array) -> Array:
        order = np.argsort(-combine, axis=-1, kind="stable")
        changed = combine.copy()
        first, second = order[..., [chosen_rank]], order[..., [other_rank]]
        for to, source in ((first, second), (second, first)):
            np.put_along_axis(changed, to, np.take_along_axis(combine, source, -1), -1)
        return changed

    return change


def test_a_choice_against_the_own_logits_is_wrong() -> None:
    tap = at(2, "router.combine")
    assert failing(judged(MOE, answered(MOE, {tap: swapped(0, -1)}))) == [tap]


LOGITS, COMBINE = at(2, "router.proj"), at(2, "router.combine")
TOP_K = int((answered(MOE, {})[COMBINE] != 0).sum(-1).max())


def tied(values: Array) -> Array:
    """Logits in which the first expert that is not chosen has as much as the last that is."""
    order = np.argsort(-values, axis=-1, kind="stable")
    changed = values.copy()
    np.put_along_axis(changed, order[..., [TOP_K]], np.take_along_axis(values, order[..., [TOP_K - 1]], -1), -1)
    return changed


def with_the_next_expert(logits: Array) -> Change:
    """The weights of a router that leaves out the last of its experts, takes the next, and weighs them rightly."""
    question = Question.of(FIXTURES, MOE)
    assert question.model_dir is not None
    decoder = ORACLE.load(question.model_dir, PROFILES["f32"])
    masked = logits.copy()
    order = np.argsort(-logits, axis=-1, kind="stable")
    np.put_along_axis(masked, order[..., [TOP_K - 1]], -np.inf, -1)
    combine = decoder.ops.combine_weights(masked, decoder.weight(2, "router.per_expert_scale"), TOP_K)
    return lambda _: combine


def test_at_a_tie_either_choice_is_right() -> None:
    answer = answered(MOE, {LOGITS: tied})
    turned = answered(MOE, {LOGITS: tied, COMBINE: with_the_next_expert(answer[LOGITS])})
    assert ((turned[COMBINE] != 0) != (answer[COMBINE] != 0)).any(-1).all()
    assert failing(judged(MOE, answer)) == failing(judged(MOE, turned)) == [LOGITS]


def test_without_a_tie_the_next_expert_is_wrong_however_it_is_weighed() -> None:
    logits = answered(MOE, {})[LOGITS]
    assert failing(judged(MOE, answered(MOE, {COMBINE: with_the_next_expert(logits)}))) == [COMBINE]


def test_a_choice_that_is_not_shown_leaves_near_ties_open() -> None:
    logits = answered(MOE, {LOGITS: tied})[LOGITS]
    turned = answered(MOE, {LOGITS: tied, COMBINE: with_the_next_expert(logits)})
    del turned[COMBINE]
    verdicts = judged(MOE, turned)
    assert failing(verdicts) == [LOGITS]
    assert [name for name, tap in verdicts.items() if tap.status == "undecidable"] == [at(2, "experts")]


def test_an_honest_answer_that_shows_no_choice_is_not_accused() -> None:
    answer = OracleAdapter("split").run(Question.of(FIXTURES, MOE).request("bf16"))
    hidden = {name: x for name, x in answer.items() if not name.endswith("router.combine")}
    verdicts = judged(MOE, hidden, "bf16")
    assert failing(verdicts) == []
    assert {name.rpartition(".")[2] for name, tap in verdicts.items() if tap.status == "undecidable"} <= {"experts"}


def test_rows_that_rounding_routes_otherwise_are_decided_locally() -> None:
    question = Question.of(FIXTURES, MOE)
    answer = OracleAdapter().run(question.request("bf16"))
    assert Examiner(FIXTURES, "bf16").examine(question, answer).outcome == "undecidable"
    verdict = examined(MOE, answer, "bf16")
    assert (verdict.outcome, verdict.judgement) == ("pass", "local")
    assert verdict.note.endswith("judged by its own taps alone: it chose other experts there, as rounding may")
    late = at(5, "experts")
    wrong = examined(MOE, answered(MOE, {late: half_more}, "bf16"), "bf16")
    assert wrong.outcome == "fail"
    assert [tap.name for tap in wrong.wrong_by_themselves] == [late]
