"""From config.json to `Config`: strict, because a misread configuration still emits fluent text."""

from collections.abc import Mapping

from mlx_impl.errors import problem, shown
from mlx_impl.model import config_fields as fields
from mlx_impl.model.config import FULL, SLIDING, Config, Rope
from mlx_impl.model.config_keys import IRRELEVANT, ROPE_KEYS, TEXT_KEYS, TOP_KEYS

FLAT_TYPES = ("gemma4_text", "gemma4_unified_text")
NESTED_TYPES = ("gemma4", "gemma4_unified")

DEFAULT_ROPE: Mapping[str, object] = {
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
    SLIDING: {"rope_type": "default", "rope_theta": 1e4},
}


def parse_config(d: Mapping[str, object]) -> Config:
    """Read a flat text config, or a nested one with its `text_config` (`model_type` says which).

    Raises MlxImplError for an unknown key, a missing key, a wrong type and an unsupported value.
    """
    if not isinstance(d, Mapping):
        raise problem("config", got=shown(d), expected="a JSON object", cure="point at a model's config.json")
    kind = fields.text(d, "model_type")
    if kind in FLAT_TYPES:
        return _parse_text(d)
    if kind not in NESTED_TYPES:
        expected = ", ".join((*NESTED_TYPES, *FLAT_TYPES))
        raise problem("model_type", got=shown(kind), expected=expected, cure="only Gemma 4 text decoders are read")
    fields.refuse_unknown(d, TOP_KEYS | IRRELEVANT, "config")
    fields.one_of(d, "tie_word_embeddings", (True,))
    text = fields.mapping(d, "text_config")
    inner = fields.text(text, "model_type")
    if inner != f"{kind}_text":
        raise problem("text_config.model_type", got=shown(inner), expected=f"'{kind}_text'", cure="correct config.json")
    return _parse_text(text)


def _parse_text(d: Mapping[str, object]) -> Config:
    """A flat text config -> Config."""
    fields.refuse_unknown(d, TEXT_KEYS | IRRELEVANT, "text_config")
    fields.one_of(d, "attention_bias", (False,))
    fields.one_of(d, "hidden_activation", ("gelu_pytorch_tanh",))
    fields.one_of(d, "use_bidirectional_attention", (None, "vision"))
    fields.one_of(d, "tie_word_embeddings", (True,))
    head_dim, kv_heads = fields.integer(d, "head_dim"), fields.integer(d, "num_key_value_heads")
    kinds = fields.texts(d, "layer_types")
    if d.get("per_layer_config") is None:
        global_head_dim = fields.integer(d, "global_head_dim")
        global_kv_heads = fields.optional_integer(d, "num_global_key_value_heads")
    else:
        global_head_dim, global_kv_heads = _globals_per_layer(d, kinds, head_dim, kv_heads)
    rope = DEFAULT_ROPE if d.get("rope_parameters") is None else fields.mapping(d, "rope_parameters")
    fields.refuse_unknown(rope, (FULL, SLIDING), "rope_parameters")
    cap = d.get("final_logit_softcapping", ...)  # null means no cap, an absent key means nothing
    return Config(
        vocab_size=fields.integer(d, "vocab_size"),
        hidden_size=fields.integer(d, "hidden_size"),
        intermediate_size=fields.integer(d, "intermediate_size"),
        num_hidden_layers=fields.integer(d, "num_hidden_layers"),
        num_attention_heads=fields.integer(d, "num_attention_heads"),
        num_key_value_heads=kv_heads,
        num_global_key_value_heads=global_kv_heads,
        head_dim=head_dim,
        global_head_dim=global_head_dim,
        layer_types=kinds,
        sliding_window=fields.integer(d, "sliding_window"),
        rope_full=_rope(rope, FULL),
        rope_sliding=_rope(rope, SLIDING),
        rms_norm_eps=fields.number(d, "rms_norm_eps"),
        final_logit_softcapping=None if cap is None else fields.number(d, "final_logit_softcapping"),
        attention_k_eq_v=fields.flag(d, "attention_k_eq_v"),
        num_kv_shared_layers=fields.integer(d, "num_kv_shared_layers", least=0),
        use_double_wide_mlp=fields.flag(d, "use_double_wide_mlp"),
        hidden_size_per_layer_input=fields.integer(d, "hidden_size_per_layer_input", least=0),
        vocab_size_per_layer_input=fields.integer(d, "vocab_size_per_layer_input", least=0, default=0),
        enable_moe_block=fields.flag(d, "enable_moe_block", default=False),
        num_experts=fields.optional_integer(d, "num_experts"),
        top_k_experts=fields.optional_integer(d, "top_k_experts"),
        moe_intermediate_size=_expert_width(d),
    )


def _rope(rope: Mapping[str, object], name: str) -> Rope:
    """One entry of `rope_parameters`; an entry of type "proportional" must state its factor."""
    entry = fields.mapping(rope, name)
    fields.refuse_unknown(entry, ROPE_KEYS, f"rope_parameters.{name}")
    rope_type = fields.text(entry, "rope_type")
    factor = {} if rope_type == "proportional" else {"default": 1.0}
    return Rope(
        rope_theta=fields.number(entry, "rope_theta"),
        rope_type=rope_type,
        partial_rotary_factor=fields.number(entry, "partial_rotary_factor", least=0.0, **factor),
    )


def _expert_width(d: Mapping[str, object]) -> int | None:
    """F of the experts under either of its names, or under both if they agree."""
    names = ("moe_intermediate_size", "expert_intermediate_size")
    first, second = (fields.optional_integer(d, name) for name in names)
    if first is not None and second is not None and first != second:
        raise problem(
            " and ".join(names), got=f"{first} and {second}", expected="one value", cure="remove one of the keys"
        )
    return first if first is not None else second


def _globals_per_layer(
    d: Mapping[str, object], kinds: tuple[str, ...], head_dim: int, kv_heads: int
) -> tuple[int, int | None]:
    """`global_head_dim` and `num_global_key_value_heads`, read as transformers 5.15 and later write them.

    `per_layer_config` maps a layer's number to what it has instead of `head_dim` and `num_key_value_heads`. The
    shape depends on the layer type only, so all full layers must agree and no sliding layer may appear.
    """
    for old in ("global_head_dim", "num_global_key_value_heads"):
        if d.get(old) is not None:
            raise problem(
                old, got="this key and per_layer_config", expected="one of the two", cure="remove one of them"
            )
    table = fields.mapping(d, "per_layer_config")
    # transformers pads the numbers with zeros ("05"), so they are compared as numbers.
    numbers = {int(key): key for key in map(str, table) if key.isascii() and key.isdigit()}
    full = [i for i, kind in enumerate(kinds) if kind == FULL]
    for key in table:
        if key not in numbers.values() or int(key) not in full:
            got, expected = f"layer {shown(key)}", "the number of a full-attention layer, once"
            raise problem("per_layer_config", got=got, expected=expected, cure="remove it")
    seen: set[tuple[int, int]] = set()
    for i in full:
        entry = fields.mapping(table, numbers[i]) if i in numbers else {}
        fields.refuse_unknown(entry, ("head_dim", "num_key_value_heads"), f"per_layer_config.{i}")
        seen.add(
            (
                fields.integer(entry, "head_dim", default=head_dim),
                fields.integer(entry, "num_key_value_heads", default=kv_heads),
            )
        )
    if len(seen) != 1:
        raise problem(
            "per_layer_config", got=shown(sorted(seen)), expected="one shape of full layers", cure="not supported"
        )
    ((global_head_dim, global_kv_heads),) = seen
    if global_kv_heads == kv_heads:
        return global_head_dim, None
    if d.get("attention_k_eq_v") is not True:
        expected = f"{kv_heads} on full layers unless attention_k_eq_v"
        raise problem("per_layer_config", got=f"{global_kv_heads} KV heads", expected=expected, cure="not supported")
    return global_head_dim, global_kv_heads
