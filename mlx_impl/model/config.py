"""The configuration: the fields of `text_config` that matter, the conditions they satisfy, every per-layer fact."""

from dataclasses import dataclass

from mlx_impl.errors import problem, shown

FULL = "full_attention"
SLIDING = "sliding_attention"

_LONGEST_AXIS = 2**31 - 1
_NEEDED = "it cannot be guessed: copy it from the published config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """One entry of `rope_parameters`."""

    rope_theta: float
    rope_type: str
    partial_rotary_factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moe:
    """The three sizes of a mixture of experts."""

    num_experts: int
    top_k: int
    intermediate_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One Gemma 4 text decoder; field names are those of `text_config`. A Config that exists is valid.

    Raises MlxImplError, naming the field, when the fields do not fit together.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    num_global_key_value_heads: int | None
    head_dim: int
    global_head_dim: int
    layer_types: tuple[str, ...]
    sliding_window: int
    rope_full: Rope
    rope_sliding: Rope
    rms_norm_eps: float
    final_logit_softcapping: float | None
    attention_k_eq_v: bool
    num_kv_shared_layers: int
    use_double_wide_mlp: bool
    hidden_size_per_layer_input: int
    vocab_size_per_layer_input: int
    enable_moe_block: bool
    num_experts: int | None
    top_k_experts: int | None
    moe_intermediate_size: int | None

    def __post_init__(self) -> None:
        _check_layers(self)
        _check_heads(self)
        _check_sizes(self)
        _check_rope(self)
        _check_moe(self)

    def is_sliding(self, layer: int) -> bool:
        """Whether the layer sees its window only. Source: `layer_types`."""
        return self.layer_types[layer] == SLIDING

    def window_of(self, layer: int) -> int | None:
        """How many tokens the layer sees, including the current one; None for all. Source: `sliding_window`."""
        return self.sliding_window if self.is_sliding(layer) else None

    def head_dim_of(self, layer: int) -> int:
        """E of the layer. Source: `head_dim` on sliding layers, `global_head_dim` on full ones."""
        return self.head_dim if self.is_sliding(layer) else self.global_head_dim

    def k_eq_v(self, layer: int) -> bool:
        """Whether values come from the key projection. Source: `attention_k_eq_v`, on full layers only."""
        return self.attention_k_eq_v and not self.is_sliding(layer)

    def kv_heads_of(self, layer: int) -> int:
        """K of the layer. Source: `num_global_key_value_heads` where K = V, else `num_key_value_heads`."""
        if self.k_eq_v(layer) and self.num_global_key_value_heads is not None:
            return self.num_global_key_value_heads
        return self.num_key_value_heads

    @property
    def own_kv_layers(self) -> range:
        """The layers with keys and values of their own. Source: all but the last `num_kv_shared_layers`."""
        return range(self.num_hidden_layers - self.num_kv_shared_layers)

    def is_kv_shared(self, layer: int) -> bool:
        """Whether the layer reads another layer's keys and values. Source: `num_kv_shared_layers`, the last ones."""
        return layer not in self.own_kv_layers

    def kv_donor(self, layer: int) -> int:
        """The layer whose keys and values are read: itself, or the last own-KV layer of the same type."""
        if not self.is_kv_shared(layer):
            return layer
        return max(i for i in self.own_kv_layers if self.layer_types[i] == self.layer_types[layer])

    def kv_donors(self) -> tuple[int, ...]:
        """`kv_donor` of all N layers."""
        return tuple(self.kv_donor(i) for i in range(self.num_hidden_layers))

    def mlp_width(self, layer: int) -> int:
        """F of the dense MLP. Source: `intermediate_size`, doubled on KV-shared layers by `use_double_wide_mlp`."""
        is_double = self.use_double_wide_mlp and self.is_kv_shared(layer)
        return self.intermediate_size * (2 if is_double else 1)

    def rope_of(self, layer: int) -> tuple[float, str, float]:
        """(rope_theta, rope_type, partial_rotary_factor) of the layer. Source: `rope_parameters`."""
        rope = self.rope_sliding if self.is_sliding(layer) else self.rope_full
        return rope.rope_theta, rope.rope_type, rope.partial_rotary_factor

    @property
    def moe(self) -> Moe | None:
        """The expert sizes, or None in a dense model. Source: `enable_moe_block`, whatever the sizes say."""
        sizes = (self.num_experts, self.top_k_experts, self.moe_intermediate_size)
        if not self.enable_moe_block or sizes[0] is None or sizes[1] is None or sizes[2] is None:
            return None
        return Moe(num_experts=sizes[0], top_k=sizes[1], intermediate_size=sizes[2])


def _check_layers(c: Config) -> None:
    n, kinds = c.num_hidden_layers, c.layer_types
    if len(kinds) != n:
        raise problem("layer_types", got=f"{len(kinds)} entries", expected=f"num_hidden_layers = {n}", cure=_NEEDED)
    for i, kind in enumerate(kinds):
        if kind not in (FULL, SLIDING):
            raise problem(
                f"layer_types[{i}]", got=shown(kind), expected=f"{FULL!r} or {SLIDING!r}", cure="correct the spelling"
            )
    if kinds[-1] != FULL:
        raise problem(
            "layer_types[-1]", got=shown(kinds[-1]), expected=f"{FULL!r}", cure="every Gemma 4 decoder ends in one"
        )
    if not 0 <= c.num_kv_shared_layers < n:
        got = str(c.num_kv_shared_layers)
        raise problem("num_kv_shared_layers", got=got, expected=f"0 to {n - 1}", cure="leave a layer with its own KV")
    own = n - c.num_kv_shared_layers
    for i in range(own, n):
        if kinds[i] not in kinds[:own]:
            raise problem(
                f"layer_types[{i}]",
                got=f"{kinds[i]!r} in the KV-shared range",
                expected=f"a layer of that type among the first {own}, which own their KV",
                cure="lower num_kv_shared_layers",
            )


def _check_heads(c: Config) -> None:
    heads = c.num_attention_heads
    for name, kv_heads in (
        ("num_key_value_heads", c.num_key_value_heads),
        ("num_global_key_value_heads", c.num_global_key_value_heads),
    ):
        if kv_heads is not None and heads % kv_heads != 0:
            expected = f"a divisor of num_attention_heads = {heads}"
            raise problem(name, got=str(kv_heads), expected=expected, cure="every key head serves as many query heads")
    for name, head_dim in (("head_dim", c.head_dim), ("global_head_dim", c.global_head_dim)):
        if head_dim % 2 != 0:
            raise problem(name, got=str(head_dim), expected="an even number", cure="RoPE rotates pairs")
    if c.hidden_size_per_layer_input > 0 and c.vocab_size_per_layer_input == 0:
        raise problem("vocab_size_per_layer_input", got="0", expected="rows for the per-layer table", cure=_NEEDED)


def _check_sizes(c: Config) -> None:
    for name, axis in (
        ("num_attention_heads * head_dim", c.num_attention_heads * c.head_dim),
        ("num_attention_heads * global_head_dim", c.num_attention_heads * c.global_head_dim),
        ("num_hidden_layers * hidden_size_per_layer_input", c.num_hidden_layers * c.hidden_size_per_layer_input),
        ("2 * intermediate_size", 2 * c.intermediate_size),
        ("2 * moe_intermediate_size", 2 * (c.moe_intermediate_size or 0)),
    ):
        if axis > _LONGEST_AXIS:
            raise problem(name, got=str(axis), expected=f"at most {_LONGEST_AXIS}", cure="no MLX array is longer")


def _check_rope(c: Config) -> None:
    for name, rope in ((FULL, c.rope_full), (SLIDING, c.rope_sliding)):
        where = f"rope_parameters.{name}"
        if rope.rope_type not in ("default", "proportional"):
            expected = "'default' or 'proportional'"
            raise problem(f"{where}.rope_type", got=shown(rope.rope_type), expected=expected, cure="not supported")
        factor = rope.partial_rotary_factor
        if not 0.0 <= factor <= 1.0:
            got = shown(factor)
            raise problem(f"{where}.partial_rotary_factor", got=got, expected="0 to 1", cure="it is a part of head_dim")
        if rope.rope_type == "default" and factor != 1.0:
            got = f"{factor} with rope_type 'default'"
            cure = "use 'proportional' to rotate a part"
            raise problem(f"{where}.partial_rotary_factor", got=got, expected="1 or no such key", cure=cure)


def _check_moe(c: Config) -> None:
    if not c.enable_moe_block:
        return
    for name, value in (
        ("num_experts", c.num_experts),
        ("top_k_experts", c.top_k_experts),
        ("moe_intermediate_size", c.moe_intermediate_size),
    ):
        if value is None:
            raise problem(name, got="null", expected="a positive integer with enable_moe_block", cure=_NEEDED)
    if c.num_experts is not None and c.top_k_experts is not None and c.top_k_experts > c.num_experts:
        expected = f"at most num_experts = {c.num_experts}"
        raise problem("top_k_experts", got=str(c.top_k_experts), expected=expected, cure="choose fewer")
