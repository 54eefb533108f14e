"""Module cases: one module on given inputs, without a checkpoint. The cheapest and sharpest questions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gemma4_contract.routing import routing_margins
from gemma4_contract.tensors import Array
from reference import weights
from reference.cases.draft import Draft, tap
from reference.cases.routing import wide_rows
from reference.family import FAMILY, FULL, SLIDING
from reference.inputs import full_precision, grid, token_ids, values
from reference.models import MODELS
from reference.oracle.arithmetic import F64
from reference.oracle.ops import Ops
from reference.taps import Tap, closed, model_taps

ROPE_POSITIONS = (0, 1, 511, 4096, 131071)

_TOPIC = {
    "linear": "arithmetic",
    "long_sum": "arithmetic",
    "exp_tanh": "arithmetic",
    "rms_norm": "norm",
    "rope": "rope",
    "inv_freq": "rope",
    "embedding": "embedding",
    "ple": "ple",
    "ple_index": "ple",
    "attention_core": "attention",
    "shared_kv_donors": "kv-sharing",
    "mlp": "mlp",
    "gelu_tanh": "mlp",
    "router": "moe",
    "experts": "moe",
    "softcap": "logits",
}
_D, _F, _X, _TOP_K, _EPS = 96, 64, 16, 8, 1e-6


def drafts(seed: int = 0) -> Iterator[Draft]:
    """The module cases; any seed but 0 draws other inputs where the case draws any."""
    suffix = f"#seed{seed}" if seed else ""
    yield from _arithmetic(suffix)
    yield from _norms(suffix)
    yield from _rope(suffix)
    yield from _embeddings(suffix)
    yield from _attention(suffix)
    yield from _donors()
    yield from _feed_forward(suffix)
    yield from _softcap()


def _draft(
    name: str,
    purpose: str,
    inputs: Mapping[str, Array],
    *,
    params: Mapping[str, Any] | None = None,
    taps: list[Tap] | None = None,
    axes: str = "L D",
    profiles: tuple[str, ...] = (),
    exact_in: str | None = None,
    advice: str | None = None,
) -> Draft:
    """A case `module/<kind with dashes>/<name>`; a single tap `y` unless `taps` says otherwise."""
    kind = name.partition("/")[0].replace("-", "_")
    return Draft(
        id=f"module/{name}",
        kind=kind,
        level="L0" if _TOPIC[kind] == "arithmetic" else "L1",
        topic=_TOPIC[kind],
        purpose=purpose,
        profiles=(exact_in,) if exact_in else profiles,
        exact_in=exact_in,
        advice=advice,
        taps=taps or [tap("y", axes)],
        inputs={key: x.astype(np.float32) if x.dtype.kind == "f" else x for key, x in inputs.items()},
        params=params or {},
    )


def _arithmetic(suffix: str) -> Iterator[Draft]:
    shape = (32, 512)
    yield _draft(
        "linear/full-precision",
        "A product over 512 terms whose inputs use all bits of a float32: TF32 shows here.",
        {
            "x": full_precision(f"linear/full-precision#x{suffix}", shape),
            "weight": full_precision(f"linear/full-precision#weight{suffix}", shape),
        },
        axes="L F",
        profiles=("f64", "f32"),
    )
    yield _draft(
        "linear/bf16-inputs",
        "A product over 512 terms with inputs that bfloat16 holds.",
        {
            "x": values(f"linear/bf16-inputs#x{suffix}", (16, 512)),
            "weight": values(f"linear/bf16-inputs#weight{suffix}", (16, 512), 512**-0.5),
        },
        axes="L F",
    )
    yield _draft(
        "long-sum/positive",
        "Sums of 4,096 positive terms: low-precision accumulators stall.",
        {"x": np.abs(full_precision(f"long-sum/positive#x{suffix}", (4, 4096)))},
        axes="B",
    )
    yield _draft(
        "exp-tanh/grid",
        "exp and tanh below zero: softmax takes exp of no positive number, and tanh is odd.",
        {"x": grid(-24.0, 0.0, 400)},
        taps=[tap("exp", "L"), tap("tanh", "L")],
    )


def _norms(suffix: str) -> Iterator[Draft]:
    def x(name: str, width: int, scale: float = 1.0) -> Array:
        return values(f"rms-norm/{name}#x{suffix}", (6, width), scale)

    weight = weights.norm(f"rms-norm/weight{suffix}", _D, 1.0)
    yield _draft(
        "rms-norm/weighted",
        "RMSNorm with a weight far from 0 and 1.",
        {"x": x("weighted", _D), "weight": weight},
        params={"eps": _EPS},
    )
    yield _draft(
        "rms-norm/unweighted",
        "RMSNorm without a weight, as values and the router's input get it.",
        {"x": x("unweighted", _D)},
        params={"eps": _EPS},
    )
    yield _draft(
        "rms-norm/near-eps",
        "Inputs whose mean square is about eps: eps belongs inside the root.",
        {"x": x("near-eps", _D, 1e-3), "weight": weight},
        params={"eps": _EPS},
    )
    yield _draft(
        "rms-norm/eps-1e-5",
        "An epsilon that is not 1e-6, with inputs small enough to feel it.",
        {"x": x("eps-1e-5", _D, 1e-3), "weight": weight},
        params={"eps": 1e-5},
    )
    yield _draft(
        "rms-norm/large",
        "Inputs of RMS 1,000, whose squares overflow float16.",
        {"x": x("large", _D, 1e3), "weight": weight},
        params={"eps": _EPS},
    )
    yield _draft(
        "rms-norm/zeros",
        "A row of zeros stays zero.",
        {"x": np.zeros((2, _D)), "weight": weight},
        params={"eps": _EPS},
    )
    yield _draft(
        "rms-norm/width-5376",
        "The widest hidden size of the family (31B).",
        {"x": x("width-5376", 5376)[:1], "weight": weights.norm(f"rms-norm/width-5376{suffix}", 5376, 1.0)},
        params={"eps": _EPS},
    )


def _rope(suffix: str) -> Iterator[Draft]:
    default = {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 1.0}
    proportional = {"rope_theta": 1000000.0, "rope_type": "proportional", "partial_rotary_factor": 0.25}
    axes = "B H L E"
    for name, params, head_dim in (("default", default, 256), ("proportional", proportional, 512)):
        for position in ROPE_POSITIONS:
            yield _draft(
                f"rope/{name}-at-{position}",
                f"{name.capitalize()} RoPE of two heads of {head_dim} at position {position}.",
                {
                    "x": values(f"rope/{name}-at-{position}#x{suffix}", (1, 2, 1, head_dim)),
                    "positions": np.array([[position]], np.int32),
                },
                params=params,
                axes=axes,
            )
        yield _draft(
            f"rope/{name}-run",
            f"{name.capitalize()} RoPE of a run of 24 tokens from position 0.",
            {
                "x": values(f"rope/{name}-run#x{suffix}", (1, 1, 24, head_dim // 8)),
                "positions": np.arange(24, dtype=np.int32)[None],
            },
            params=params,
            axes=axes,
        )
        yield _draft(
            f"rope/{name}-rows",
            f"{name.capitalize()} RoPE of a batch whose rows stand at other positions.",
            {
                "x": values(f"rope/{name}-rows#x{suffix}", (3, 2, 1, head_dim // 8)),
                "positions": np.array([[18], [15], [6]], np.int32),
            },
            params=params,
            axes=axes,
        )
    e2b = dict(FAMILY["e2b"].text_config)
    uncut = {**e2b["rope_parameters"], FULL: {**e2b["rope_parameters"][FULL], "partial_rotary_factor": 1.0}}
    configs = {
        "e2b-sliding": ("Frequencies of E2B's sliding layers.", e2b, SLIDING),
        "e2b-full": ("Frequencies of E2B's full layers: 64 values and 192 zeros.", e2b, FULL),
        "e2b-full-uncut": (
            "Frequencies of full layers whose partial_rotary_factor is 1: all 256 pairs rotate.",
            {**e2b, "rope_parameters": uncut},
            FULL,
        ),
    }
    for name, (purpose, config, layer_type) in configs.items():
        yield _draft(
            f"inv-freq/{name}",
            purpose,
            {},
            params={"config": config, "layer_type": layer_type},
            taps=[tap("inv_freq", "E/2")],
        )


def _embeddings(suffix: str) -> Iterator[Draft]:
    for width in (_D, 1536):
        table = weights.matrix(f"embedding/width-{width}#table{suffix}", (4, width), width)
        yield _draft(
            f"embedding/width-{width}",
            f"Rows of an embedding table times the root of {width}.",
            {"ids": token_ids(f"embedding/width-{width}#ids{suffix}", 4, 4), "table": table},
            axes="B L D",
            profiles=("f64", "f32"),
        )
    for profile in ("bf16", "f16"):
        name = f"rounded-scale-{profile}"
        table = weights.matrix(f"embedding/{name}#table{suffix}", (4, 1536), 1536)
        yield _draft(
            f"embedding/{name}",
            f"The root of 1536 is rounded to {profile} before it multiplies: one right answer to the bit.",
            {"ids": token_ids(f"embedding/{name}#ids{suffix}", 4, 4), "table": table},
            axes="B L D",
            exact_in=profile,
        )
    layers, width, vocab = 3, 16, 32
    yield _draft(
        "ple/three-layers",
        "Token rows, context projection and their scaled sum for three layers.",
        {
            "ids": token_ids(f"ple/three-layers#ids{suffix}", 7, vocab),
            "h": values(f"ple/three-layers#h{suffix}", (1, 7, _D)),
            "table": weights.matrix(f"ple/three-layers#table{suffix}", (vocab, layers * width), width),
            "projection": weights.matrix(f"ple/three-layers#projection{suffix}", (layers * width, _D), _D),
            "norm": weights.norm(f"ple/three-layers#norm{suffix}", width, 1.0),
        },
        params={"eps": _EPS, "num_layers": layers},
        taps=closed([tap for tap in model_taps(MODELS["e2b-mini"].config) if "N" in tap.axes]),
    )
    for name, (token, layer, channel) in {"first": (0, 0, 0), "past-int32": (262143, 34, 255)}.items():
        yield _draft(
            f"ple-index/{name}",
            f"Where channel {channel} of layer {layer} of token {token} lies in E2B's packed table.",
            {},
            params={"num_layers": 35, "width": 256, "id": token, "layer": layer, "channel": channel},
            taps=[tap("offset", "L")],
        )


def _attention(suffix: str) -> Iterator[Draft]:
    def case(
        name: str,
        purpose: str,
        *,
        heads: tuple[int, int],
        head_dim: int,
        queries: list[int],
        keys: list[int],
        window: int | None,
        scale: float = 0.0,
    ) -> Draft:
        q_std = scale or 1.4 / math.sqrt(head_dim)
        return _draft(
            f"attention-core/{name}",
            purpose,
            {
                "q": values(f"attention-core/{name}#q{suffix}", (1, heads[0], len(queries), head_dim), q_std),
                "k": values(f"attention-core/{name}#k{suffix}", (1, heads[1], len(keys), head_dim)),
                "v": values(f"attention-core/{name}#v{suffix}", (1, heads[1], len(keys), head_dim)),
                "q_positions": np.array([queries], np.int32),
                "k_positions": np.array([keys], np.int32),
            },
            params={"window": window},
            taps=[tap("context", "B L H*E")],
        )

    run = list(range(19))
    yield case(
        "causal",
        "Four query heads over two key/value heads, causal.",
        heads=(4, 2),
        head_dim=16,
        queries=run,
        keys=run,
        window=None,
    )
    yield case(
        "three-to-one",
        "Three query heads to a key/value head.",
        heads=(6, 2),
        head_dim=16,
        queries=run[:8],
        keys=run[:8],
        window=None,
    )
    yield case(
        "window",
        "A window of 8 over 19 tokens: a query sees itself and the seven tokens before it.",
        heads=(4, 1),
        head_dim=16,
        queries=run,
        keys=run,
        window=8,
    )
    yield case(
        "ring",
        "One query over a ring buffer whose keys lie out of order.",
        heads=(4, 2),
        head_dim=16,
        queries=[10],
        keys=[8, 9, 10, 3, 4, 5, 6, 7],
        window=8,
    )
    yield case(
        "single-key",
        "One query and one key: the context is the value.",
        heads=(2, 1),
        head_dim=16,
        queries=[0],
        keys=[0],
        window=8,
    )
    yield case(
        "hot",
        "Scores up to 25, where a softmax in low precision breaks.",
        heads=(4, 2),
        head_dim=32,
        queries=run[:12],
        keys=run[:12],
        window=None,
        scale=1.0,
    )
    yield case(
        "head-dim-512",
        "The real head dim of full layers.",
        heads=(2, 1),
        head_dim=512,
        queries=run[:5],
        keys=run[:5],
        window=None,
    )
    name, head_dim = "far-apart", 32
    signs = np.where(values(f"attention-core/{name}#signs{suffix}", (head_dim,)) < 0, -1.0, 1.0)
    scores = np.array([45.0, 60.0, 50.0, 55.0, 40.0, 58.0])  # each a sum of products that every profile holds
    yield _draft(
        f"attention-core/{name}",
        "Scores up to 60, a few apart: capped they would draw near to each other.",
        {
            "q": np.tile(signs / 4, (1, 2, 3, 1)),
            "k": (signs * scores[:, None] / 8)[None, None],
            "v": values(f"attention-core/{name}#v{suffix}", (1, 1, len(scores), head_dim)),
            "q_positions": np.array([[3, 4, 5]], np.int32),
            "k_positions": np.arange(len(scores), dtype=np.int32)[None],
        },
        params={"window": None},
        taps=[tap("context", "B L H*E")],
    )


def _donors() -> Iterator[Draft]:
    for member in ("e2b", "e4b", "31b"):
        config = dict(FAMILY[member].text_config)
        yield _donor_draft(member, f"Which layer's keys and values each layer of {member.upper()} uses.", config)
    irregular = dict(MODELS["trap-irregular"].text_config)
    yield _donor_draft("irregular", "Donors where the last layer before the shared range is full.", irregular)


def _donor_draft(name: str, purpose: str, config: dict[str, Any]) -> Draft:
    return _draft(
        f"shared-kv-donors/{name}",
        purpose,
        {},
        params={"config": config},
        taps=[tap("donors", "N")],
    )


def _feed_forward(suffix: str) -> Iterator[Draft]:
    yield _draft(
        "gelu-tanh/grid",
        "The tanh form of GELU over [-4.5, 4.5]; the erf form differs by up to 5e-4.",
        {"x": grid(-4.5, 4.5, 400)},
        axes="L",
    )
    yield _draft(
        "mlp/dense",
        "The gated MLP.",
        {
            "x": values(f"mlp/dense#x{suffix}", (1, 5, _D)),
            "gate": weights.matrix(f"mlp/dense#gate{suffix}", (_F, _D), _D),
            "up": weights.matrix(f"mlp/dense#up{suffix}", (_F, _D), _D),
            "down": weights.matrix(f"mlp/dense#down{suffix}", (_D, _F), _F),
        },
        taps=[tap("act", "B L F"), tap("y", "B L D", "act")],
    )
    yield _draft(
        "mlp/overflow",
        "act * up reaches 7e4, which float16 cannot hold although every input and the golden's output can.",
        {
            "x": np.full((1, 1, 2), 256.0),
            "gate": np.array([[0.5, 0.5], [0.25, 0.0]]),
            "up": np.array([[0.5, 0.578125], [0.0, 0.5]]),
            "down": np.array([[2.0**-4, 1.0], [0.0, 2.0**-2]]),
        },
        taps=[tap("act", "B L F"), tap("y", "B L D", "act")],
        profiles=("f16",),
        advice="act * up overflows float16: multiply in float32 and scale, or run the MLP in float32 or bfloat16",
    )
    router = {
        "scale": weights.norm(f"router/top-8-of-16#scale{suffix}", _D, 1.5 * math.sqrt(_D)),
        "proj": weights.matrix(f"router/top-8-of-16#proj{suffix}", (_X, _D), _D),
        "per_expert_scale": weights.per_expert_scale(f"router/top-8-of-16#per_expert_scale{suffix}", _X),
    }
    ops = Ops(F64)

    def route(h: Array) -> tuple[Array, Array]:
        logits = ops.router_logits(h, router["scale"], router["proj"], _EPS)
        return logits, ops.combine_weights(logits, router["per_expert_scale"], _TOP_K)

    pool = values(f"router/top-8-of-16#h{suffix}", (200, _D), 2.0)
    router["h"] = wide_rows(pool, 6, lambda rows: float(routing_margins(*route(rows))[0, -1]))
    yield _draft(
        "router/top-8-of-16",
        "Router logits, and the weights of the eight chosen experts.",
        router,
        params={"eps": _EPS, "top_k": _TOP_K},
        taps=[tap("proj", "B L X"), tap("combine", "B L X", "proj", cls="routing")],
    )
    width = 16
    yield _draft(
        "experts/fused",
        "The weighted sum over eight experts of sixteen; gate and up are the halves of one fused matrix.",
        {
            "x": values(f"experts/fused#x{suffix}", (1, 6, _D)),
            "combine": weights.bf16(route(router["h"])[1]),
            "gate_up": weights.matrix(f"experts/fused#gate_up{suffix}", (_X, 2 * width, _D), _D),
            "down": weights.matrix(f"experts/fused#down{suffix}", (_X, _D, width), width),
        },
        axes="B L D",
    )


def _softcap() -> Iterator[Draft]:
    for cap in (30.0, 12.0):
        yield _draft(
            f"softcap/cap-{cap:.0f}",
            f"cap * tanh(x / cap) with cap {cap:.0f} and |x| up to 120.",
            {"x": grid(-120.0, 120.0, 300)[None, None]},
            params={"cap": cap},
            axes="B L V",
        )
