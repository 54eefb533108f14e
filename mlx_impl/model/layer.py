"""One decoder layer: attention, feed-forward (dense or MoE), per-layer input, layer scalar."""

import mlx.core as mx
from mlx.nn.layers.linear import Linear

from mlx_impl.errors import problem
from mlx_impl.model import mlp, moe, ple
from mlx_impl.model.attention import Attention
from mlx_impl.model.config import Config
from mlx_impl.model.kv_cache import KV, FullKVCache
from mlx_impl.model.norms import Norm
from mlx_impl.model.params import Block
from mlx_impl.model.taps import Tap, unwatched


class MLP(Block):
    """Holds the weights of one `mlp.gated_mlp`. Source: `Config.mlp_width`."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.mlp_width(layer)
        self.gate_proj = Linear(width, inner, bias=False)
        self.up_proj = Linear(width, inner, bias=False)
        self.down_proj = Linear(inner, width, bias=False)


class Router(Block):
    """Holds the weights of one `moe.route`. Source: `num_experts`."""

    def __init__(self, width: int, num_experts: int) -> None:
        super().__init__()
        self.proj = Linear(width, num_experts, bias=False)
        self.scale = mx.ones((width,))
        self.per_expert_scale = mx.ones((num_experts,))


class Experts(Block):
    """Holds the weights of one `moe.apply_experts`. Source: `num_experts`, `moe_intermediate_size`."""

    def __init__(self, width: int, num_experts: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj = mx.zeros((num_experts, 2 * inner, width))
        self.down_proj = mx.zeros((num_experts, width, inner))


class DecoderLayer(Block):
    """One layer of the decoder. Source: the per-layer methods of `Config`."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        width, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config, layer)
        self.input_layernorm = Norm(width, eps)
        self.post_attention_layernorm = Norm(width, eps)
        self.pre_feedforward_layernorm = Norm(width, eps)
        self.post_feedforward_layernorm = Norm(width, eps)
        if config.moe is not None:
            self.router = Router(width, config.moe.num_experts)
            self.experts = Experts(width, config.moe.num_experts, config.moe.intermediate_size)
            self.post_feedforward_layernorm_1 = Norm(width, eps)
            self.pre_feedforward_layernorm_2 = Norm(width, eps)
            self.post_feedforward_layernorm_2 = Norm(width, eps)
        if config.hidden_size_per_layer_input > 0:
            self.per_layer_input_gate = Linear(width, config.hidden_size_per_layer_input, bias=False)
            self.per_layer_projection = Linear(config.hidden_size_per_layer_input, width, bias=False)
            self.post_per_layer_input_norm = Norm(width, eps)
        self.layer_scalar = mx.ones((1,))

    def __call__(
        self,
        h: mx.array,
        positions: mx.array,
        inv_freq: mx.array,
        *,
        valid: mx.array | None = None,
        ple_slice: mx.array | None = None,
        shared: KV | None = None,
        cache: FullKVCache | None = None,
        tap: Tap = unwatched,
    ) -> tuple[mx.array, KV]:
        """The whole layer: h [B, L, D] -> [B, L, D] in h's dtype, and the KV it attended to.

        positions [B, L] int32, inv_freq [E/2] float32 (`rope.layer_frequencies`), valid [B, L] bool or None,
        ple_slice [B, L, P] when the model has per-layer embeddings, `shared` the donor's KV on KV-shared layers.
        Tap names are relative to `model.layers.{i}.`. Raises MlxImplError when an input that the layer needs is
        missing.
        """
        x = self.input_layernorm(h)
        x = tap("input_layernorm", x)
        attended, kv = self.self_attn(x, positions, inv_freq, valid=valid, shared=shared, cache=cache, tap=tap)
        branch = self.post_attention_layernorm(attended)
        branch = tap("post_attention_layernorm", branch)
        h = h + branch
        h = tap("residual_1", h)

        branch = self.feed_forward(h, tap)
        branch = self.post_feedforward_layernorm(branch)
        branch = tap("post_feedforward_layernorm", branch)
        h = h + branch
        h = tap("residual_2", h)

        if self.config.hidden_size_per_layer_input > 0:
            h = h + self.per_layer_input(h, ple_slice, tap)
        # The scalar multiplies the whole residual stream, last, on every layer.
        h = h * self.layer_scalar
        h = tap("output", h)
        return h, kv

    def feed_forward(self, h: mx.array, tap: Tap) -> mx.array:
        """mlp(norm(h)), or norm_1(mlp(norm(h))) + norm_2(experts(norm_2'(h))): h [B, L, D] -> [B, L, D]."""
        x = self.pre_feedforward_layernorm(h)
        x = tap("pre_feedforward_layernorm", x)
        dense = mlp.gated_mlp(x, self.mlp.gate_proj, self.mlp.up_proj, self.mlp.down_proj, tap)
        facts = self.config.moe
        if facts is None:
            return dense
        dense = self.post_feedforward_layernorm_1(dense)
        dense = tap("post_feedforward_layernorm_1", dense)
        # The router reads the residual itself; only the experts read the second norm of it.
        router, experts = self.router, self.experts
        indices, weights = moe.route(
            h, router.scale, router.proj, router.per_expert_scale, facts.top_k, self.config.rms_norm_eps, tap
        )
        x = self.pre_feedforward_layernorm_2(h)
        x = tap("pre_feedforward_layernorm_2", x)
        sparse = moe.apply_experts(x, indices, weights, experts.gate_up_proj, experts.down_proj, tap)
        sparse = self.post_feedforward_layernorm_2(sparse)
        sparse = tap("post_feedforward_layernorm_2", sparse)
        return dense + sparse

    def per_layer_input(self, h: mx.array, ple_slice: mx.array | None, tap: Tap) -> mx.array:
        """`ple.gated` with this layer's weights: h [B, L, D], ple_slice [B, L, P] -> [B, L, D]."""
        if ple_slice is None:
            raise problem(
                f"layer {self.layer}",
                got="no per-layer input",
                expected="ple_slice [B, L, P]",
                cure="pass ple.per_layer_inputs(...)[:, :, layer]",
            )
        norm = self.post_per_layer_input_norm
        return ple.gated(h, ple_slice, self.per_layer_input_gate, self.per_layer_projection, norm.weight, norm.eps, tap)
