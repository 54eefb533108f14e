"""mlx_impl with one known mistake put in turns the suite red, and the first red tap is that of the mistaken module.

Every mistake names cases with the tap where each must first depart, and cases that cannot see it and must stay green: a
verdict that is red everywhere locates nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

import mlx_impl
from conformance.adapters.mlx_impl.adapter import MlxImplAdapter
from conformance.diagnosis.diagnose import diagnose
from conformance.judging.examine import CaseVerdict
from conformance.judging.judge import Judge
from mlx_impl import Config
from mlx_impl.model import kv_cache
from reference.mutants import MUTANTS
from reference.mutants.mutant import STOPS
from tests.support import mlx_mistakes as m
from tests.support.installed import FIXTURES
from tests.support.mlx_mistakes import Patch

E2B, E4B, DENSE, MOE = (
    f"forward/{model}/uniform-l19" for model in ("e2b-mini", "e4b-mini", "12b-mini", "26b-a4b-mini")
)


def config_of(model: str) -> Config:
    return mlx_impl.load_config(FIXTURES.model_dir(model))


FULL_E2B, FULL_DENSE, FULL_MOE, FULL_31B = (
    config_of(f"{model}-mini").layer_types.index("full_attention") for model in ("e2b", "12b", "26b-a4b", "31b")
)
"""The first full layer; it owns its keys, and in the last two models it is the only one."""
SHARED_E2B = config_of("e2b-mini").num_hidden_layers - config_of("e2b-mini").num_kv_shared_layers
"""The first shared layer, a sliding one."""
WINDOW = config_of("e2b-mini").sliding_window


# The mistakes


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """How it is put in, where each case must first see it, and which cases cannot."""

    apply: Callable[[Patch], None]
    seen: Mapping[str, str]
    unseen: Sequence[str] = field(default=())


def at(layer: int, tap: str) -> str:
    return f"model.layers.{layer}.{tap}"


MISTAKES: dict[str, Mistake] = {
    "layer-scalar-dropped": Mistake(
        apply=m.loaded_with(m.scalars_of_one),
        seen={
            **{f"{forward}/no-cache": at(0, "output") for forward in (E2B, DENSE, MOE)},
            f"{E2B}/tokens": at(0, "output"),
            "layer/31b-mini/full-own-hot": at(FULL_31B, "output"),
        },
        unseen=["attention/e2b-mini/full-own"],
    ),
    "sliding-window-one-more": Mistake(
        apply=m.window_of(lambda window: window + 1),
        seen={
            f"{E2B}/no-cache": at(0, "self_attn.probs"),
            f"{DENSE}/no-cache": at(0, "self_attn.probs"),
            f"{E2B}/one-shot": at(0, "self_attn.context"),
            f"{E2B}/padded-no-cache": at(0, "self_attn.context"),
            "forward/e2b-mini/uniform-l9/no-cache": at(0, "self_attn.probs"),
            "module/attention-core/window": "context",
        },
        unseen=["forward/e2b-mini/uniform-l8/no-cache", "layer/12b-mini/full-own", "module/attention-core/causal"],
    ),
    "prop-rope-denominator": Mistake(
        apply=m.denominator_of_the_rotary_width,
        seen={
            f"{E2B}/no-cache": at(FULL_E2B, "self_attn.q_rope"),
            f"{DENSE}/no-cache": at(FULL_DENSE, "self_attn.q_rope"),
            "attention/12b-mini/full-own": at(FULL_DENSE, "self_attn.q_rope"),
            "module/rope/proportional-at-1": "y",
            "module/inv-freq/e2b-full": "inv_freq",
        },
        unseen=["module/rope/proportional-at-0", "module/rope/default-at-511", "forward/12b-mini/uniform-l1/no-cache"],
    ),
    # Others of the 25 that ports make most.
    "prop-rope-contiguous-prefix": Mistake(
        apply=m.contiguous_prefix,
        seen={f"{E2B}/no-cache": at(FULL_E2B, "self_attn.q_rope"), "module/rope/proportional-at-1": "y"},
        unseen=["module/rope/default-at-131071", "module/inv-freq/e2b-full", "layer/e2b-mini/sliding-own"],
    ),
    "rmsnorm-plus-one": Mistake(
        apply=m.norm_weight_plus_one,
        seen={
            f"{DENSE}/no-cache": at(0, "input_layernorm"),
            f"{E2B}/no-cache": "model.per_layer_projection_norm",
            "module/rms-norm/weighted": "y",
        },
        unseen=["module/rms-norm/unweighted"],
    ),
    "rmsnorm-eps-outside-root": Mistake(
        apply=m.eps_outside_the_root,
        seen={"module/rms-norm/near-eps": "y", "module/rms-norm/eps-1e-5": "y"},
        unseen=["module/rms-norm/large", "module/rms-norm/zeros"],
    ),
    "attn-scale-not-one": Mistake(
        apply=m.scores_scaled,
        seen={
            f"{E2B}/no-cache": at(0, "self_attn.probs"),
            f"{DENSE}/tokens": at(0, "self_attn.context"),
            "forward/12b-mini/uniform-l2/no-cache": at(0, "self_attn.probs"),
            "module/attention-core/causal": "context",
        },
        unseen=["forward/12b-mini/uniform-l1/no-cache", "module/attention-core/single-key"],
    ),
    "attn-softcap-added": Mistake(
        apply=m.scores_capped,
        seen={f"{DENSE}/no-cache": at(0, "self_attn.probs"), "module/attention-core/hot": "context"},
        unseen=["module/attention-core/single-key"],
    ),
    "softcap-missing": Mistake(
        apply=m.softcap_missing,
        seen={
            f"{E2B}/no-cache": "logits",
            "forward/trap-softcap/uniform-l19/chunks-5": "logits",
            "module/softcap/cap-30": "y",
        },
        unseen=["layer/e2b-mini/full-own"],
    ),
    "gelu-erf": Mistake(
        apply=m.gelu_by_erf,
        seen={
            f"{DENSE}/no-cache": at(0, "mlp.act"),
            "module/gelu-tanh/grid": "y",
            "module/mlp/dense": "act",
            "module/experts/fused": "y",
        },
        unseen=["attention/12b-mini/full-own"],
    ),
    "keqv-v-from-normed-roped-k": Mistake(
        apply=m.value_from_finished_key,
        seen={
            f"{DENSE}/no-cache": at(FULL_DENSE, "self_attn.v_norm"),
            f"{MOE}/tokens": at(FULL_MOE, "self_attn.v_norm"),
            "attention/12b-mini/full-own": at(FULL_DENSE, "self_attn.v_norm"),
        },
        unseen=[f"{E2B}/no-cache", "layer/12b-mini/sliding-own"],
    ),
    "router-double-norm": Mistake(
        apply=m.router_fed_with_a_norm,
        seen={
            f"{MOE}/no-cache": at(0, "router.proj"),
            "layer/26b-a4b-mini/sliding-own": at(0, "router.proj"),
        },
        unseen=[f"{DENSE}/no-cache", "module/router/top-8-of-16"],
    ),
    "per-expert-scale-missing": Mistake(
        apply=m.per_expert_scale_missing,
        seen={
            f"{MOE}/no-cache": at(0, "router.combine"),
            "layer/26b-a4b-mini/full-own-hot": at(FULL_MOE, "router.combine"),
            "module/router/top-8-of-16": "combine",
        },
        unseen=["module/experts/fused"],
    ),
    "router-not-renormalised": Mistake(
        apply=m.weights_not_renormalised,
        seen={f"{MOE}/no-cache": at(0, "router.combine"), "module/router/top-8-of-16": "combine"},
        unseen=["module/experts/fused"],
    ),
    "gate-up-interleaved-split": Mistake(
        apply=m.gate_and_up_interleaved,
        seen={f"{MOE}/no-cache": at(0, "experts"), "module/experts/fused": "y"},
        unseen=["module/mlp/dense", "module/router/top-8-of-16"],
    ),
    "embed-scale-missing": Mistake(
        apply=m.embedding_unscaled,
        seen={
            f"{E2B}/no-cache": "model.embed_tokens",
            f"{MOE}/tokens": "model.embed_tokens",
            "module/embedding/width-96": "y",
        },
        unseen=["layer/e2b-mini/sliding-own"],
    ),
    "sliding-mask-not-applied": Mistake(
        apply=m.window_of(lambda _: None),
        seen={f"{DENSE}/no-cache": at(0, "self_attn.probs"), "module/attention-core/window": "context"},
        unseen=["forward/12b-mini/uniform-l8/no-cache"],
    ),
    "batch-left-padding-lost": Mistake(
        apply=m.pads_attended,
        seen={
            f"{E2B}/padded-no-cache": at(0, "self_attn.context"),
            f"{DENSE}/padded-no-cache": at(0, "self_attn.context"),
        },
        unseen=[f"{E2B}/no-cache"],
    ),
    "ple-wrong-layer": Mistake(
        apply=m.slices_of_the_next_layer,
        seen={
            f"{E2B}/no-cache": at(0, "ple_gated"),
            "forward/trap-ple-unshared/uniform-l19/tokens": at(0, "ple_gated"),
        },
        unseen=["layer/e2b-mini/sliding-own", "module/ple/three-layers", f"{DENSE}/no-cache"],
    ),
    "ple-layout-transposed": Mistake(
        apply=m.loaded_with(m.per_layer_table_transposed),
        seen={f"{E2B}/no-cache": "model.embed_tokens_per_layer"},
        unseen=[f"{DENSE}/no-cache"],
    ),
    "ple-chunk-not-sliced": Mistake(
        apply=m.every_chunk_gets_the_first_rows,
        seen={
            f"{E2B}/chunks-5": "model.embed_tokens_per_layer",
            f"{E2B}/tokens": "model.embed_tokens_per_layer",
        },
        unseen=[f"{E2B}/no-cache", f"{E2B}/one-shot", f"{DENSE}/chunks-5"],
    ),
    "donor-first-of-type": Mistake(
        apply=m.donor_of(m.first_of_type),
        seen={
            f"{E2B}/no-cache": at(SHARED_E2B, "self_attn.k_read"),
            f"{E2B}/tokens": at(SHARED_E2B, "self_attn.context"),
            "module/shared-kv-donors/e2b": "donors",
        },
        unseen=[f"{DENSE}/no-cache", "module/shared-kv-donors/31b", "layer/e2b-mini/sliding-shared"],
    ),
    "donor-one-too-early": Mistake(
        apply=m.donor_of(m.second_to_last_of_type),
        seen={f"{E2B}/no-cache": at(SHARED_E2B, "self_attn.k_read"), "module/shared-kv-donors/e4b": "donors"},
        unseen=["module/shared-kv-donors/31b"],
    ),
    "shared-layer-current-step-kv-only": Mistake(
        apply=m.shared_layers_see(kv_cache.newest, sliding_alone=False),
        seen={
            f"{E2B}/tokens": at(SHARED_E2B, "self_attn.context"),
            f"{E2B}/chunks-5": at(SHARED_E2B, "self_attn.context"),
        },
        unseen=[f"{E2B}/no-cache", f"{E2B}/one-shot"],
    ),
    "rotating-donor-truncated-kv": Mistake(
        apply=m.shared_layers_see(lambda kv, _: kv_cache.newest(kv, WINDOW - 1), sliding_alone=True),
        seen={
            f"{E2B}/one-shot": at(SHARED_E2B, "self_attn.context"),
            f"{E2B}/chunks-11": at(SHARED_E2B, "self_attn.context"),
        },
        unseen=["forward/e2b-mini/uniform-l7/one-shot"],
    ),
    "shared-q-offset-after-update": Mistake(
        apply=m.offset_read_after_the_update,
        seen={
            f"{E2B}/{plan}": at(SHARED_E2B, "self_attn.q_rope") for plan in ("one-shot", "tokens", "chunks-5", "padded")
        },
        unseen=[f"{E2B}/no-cache", f"{DENSE}/tokens"],
    ),
    # Configuration, loading, decoding
    "rope-default-factor-one": Mistake(
        apply=m.default_factor_one,
        seen={"forward/layout-no-rope/uniform-l19/no-cache": at(2, "self_attn.q_rope")},
        unseen=["forward/trap-softcap/uniform-l19/no-cache", f"{E2B}/no-cache", "module/inv-freq/e2b-full"],
    ),
    "softcap-read-from-top-level": Mistake(
        apply=m.softcap_beside_text_config,
        seen={f"{E2B}/no-cache": "logits", f"{DENSE}/tokens": "logits"},
        unseen=["forward/trap-softcap/uniform-l19/no-cache", "module/softcap/cap-30"],
    ),
    "prefix-language-model-unknown": Mistake(
        apply=m.one_prefix_unknown,
        seen={f"forward/layout-{name}/uniform-l19/no-cache": STOPS for name in ("language-model", "split-experts")},
        unseen=[f"{E2B}/no-cache", "forward/layout-sharded/uniform-l19/no-cache"],
    ),
    "shared-kv-weights-refused": Mistake(
        apply=m.redundant_weights_refused,
        seen={"forward/layout-redundant-kv/uniform-l19/no-cache": STOPS, f"{E4B}/no-cache": STOPS},
        unseen=[f"{E2B}/no-cache", "forward/layout-towers/uniform-l19/no-cache"],
    ),
    "experts-up-before-gate": Mistake(
        apply=m.up_before_gate,
        seen={"forward/layout-split-experts/uniform-l19/no-cache": at(0, "experts")},
        unseen=[f"{MOE}/no-cache", "module/experts/fused"],
    ),
    "rotating-cache-evicts-early": Mistake(
        apply=m.single_steps_see_one_key_less,
        seen={f"{E2B}/tokens": at(0, "self_attn.context"), f"{DENSE}/tokens": at(0, "self_attn.context")},
        unseen=[f"{E2B}/no-cache", f"{E2B}/one-shot"],
    ),
    "cache-not-carried": Mistake(
        apply=m.nothing_carried,
        seen={f"{E2B}/tokens": at(0, "self_attn.context"), f"{DENSE}/chunks-5": at(0, "self_attn.context")},
        unseen=[f"{E2B}/no-cache", f"{E2B}/one-shot"],
    ),
}


def judged(case: str) -> CaseVerdict:
    return Judge(FIXTURES, MlxImplAdapter(), "f32").judge(case)


def by_speed(rows: Iterable[tuple[str, ...]]) -> list[Any]:
    """Parameters of a test; MLX takes seconds over a long text token by token."""
    long = f"{E2B}/tokens", f"{DENSE}/tokens", f"{MOE}/tokens"
    return [pytest.param(*row, marks=() if set(row).isdisjoint(long) else pytest.mark.slow) for row in rows]


SEEN = [(mistake, case, tap) for mistake, facts in MISTAKES.items() for case, tap in facts.seen.items()]
UNSEEN = [(mistake, case) for mistake, facts in MISTAKES.items() for case in facts.unseen]
USED = sorted({case for _, case, _ in SEEN} | {case for _, case in UNSEEN})


@pytest.mark.parametrize("case", by_speed((case,) for case in USED))
def test_without_a_mistake_the_case_is_green(case: str) -> None:
    assert judged(case).outcome == "pass"


@pytest.mark.parametrize(("mistake", "case", "tap"), by_speed(SEEN))
def test_the_mistake_is_first_seen_at_its_module(mistake: str, case: str, tap: str, monkeypatch: Patch) -> None:
    MISTAKES[mistake].apply(monkeypatch)
    verdict = judged(case)
    if tap == STOPS:
        assert verdict.outcome == "error"
        return
    assert verdict.outcome == "fail", verdict.note
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.name == tap


@pytest.mark.parametrize(("mistake", "case"), by_speed(UNSEEN))
def test_a_case_that_cannot_see_the_mistake_stays_green(mistake: str, case: str, monkeypatch: Patch) -> None:
    MISTAKES[mistake].apply(monkeypatch)
    verdict = judged(case)
    assert verdict.outcome == "pass", verdict.note or verdict.first_divergence


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_mistake_is_called_by_its_name(mistake: str, monkeypatch: Patch) -> None:
    """The catalogue's mistakes were put into the oracle; these into MLX, by other hands: they must look the same."""
    facts = MISTAKES[mistake]
    facts.apply(monkeypatch)
    verdicts = [judged(case) for case in (*facts.seen, *facts.unseen)]
    monkeypatch.undo()
    naming = diagnose(FIXTURES, "f32", verdicts, MUTANTS, None).naming
    if all(tap == STOPS for tap in facts.seen.values()):
        assert naming.stops_like == (mistake,)
    else:
        assert naming.mutant is not None, naming
        assert naming.mutant.id == mistake


@pytest.mark.parametrize("mistake", ["layer-scalar-dropped", "sliding-window-one-more"])
def test_the_last_tap_alone_would_have_told_too(mistake: str, monkeypatch: Patch) -> None:
    MISTAKES[mistake].apply(monkeypatch)
    assert judged(f"{E2B}/no-cache").taps[-1].status == "fail"
