"""The whole decoder: embedding, layers, final norm, logits."""

from collections.abc import Sequence

import mlx.core as mx
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear

from mlx_impl.errors import problem
from mlx_impl.model import embedding, kv_cache, params, ple, rope
from mlx_impl.model.config import Config
from mlx_impl.model.kv_cache import KV, FullKVCache
from mlx_impl.model.layer import DecoderLayer
from mlx_impl.model.norms import Norm
from mlx_impl.model.params import Block, Weight
from mlx_impl.model.taps import Tap, scope, unwatched

__all__ = ["Decoder", "DecoderLayer", "TextModel", "pass_positions", "softcap"]


def softcap(x: mx.array, cap: float | None) -> mx.array:
    """cap * tanh(x / cap), or x when cap is None: [...] -> the same shape and dtype, computed in float32.

    Source: `final_logit_softcapping`.
    """
    if cap is None:
        return x
    return (cap * mx.tanh(x.astype(mx.float32) / cap)).astype(x.dtype)


def pass_positions(
    ids: mx.array, positions: mx.array | None, valid: mx.array | None, caches: Sequence[FullKVCache] | None
) -> mx.array:
    """The positions [B, L] int32 of one pass: those given, or else offset + 0..L-1 in every row.

    Raises MlxImplError if that default would count pads, and if shapes disagree.
    """
    shape = tuple(ids.shape)
    if ids.ndim != 2:
        raise problem("ids", got=f"shape {shape}", expected="[B, L]", cure="add a batch axis: ids[None]")
    for name, given in (("positions", positions), ("valid", valid)):
        if given is not None and tuple(given.shape) != shape:
            raise problem(
                name,
                got=f"shape {tuple(given.shape)}",
                expected=f"the shape of ids, {shape}",
                cure="give one for each id",
            )
    if positions is not None:
        return positions.astype(mx.int32)
    if valid is not None or (caches and caches[0].padded):
        raise problem(
            "positions",
            got="none for a padded batch",
            expected="[B, L]",
            cure="pass positions 0..n-1 for the real tokens of every row, and 0 for pads",
        )
    start = kv_cache.common_offset(caches)
    return mx.broadcast_to(mx.arange(start, start + shape[1], dtype=mx.int32), shape)  # [B, L]


class TextModel(Block):
    """Embedding, layers and final norm: the part of a checkpoint under `model.`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, per_layer = config.hidden_size, config.hidden_size_per_layer_input
        self.embed_tokens = Embedding(config.vocab_size, width)
        self.layers = [DecoderLayer(config, i) for i in range(config.num_hidden_layers)]
        self.norm = Norm(width, config.rms_norm_eps)
        if per_layer > 0:
            packed = config.num_hidden_layers * per_layer  # N*P
            self.embed_tokens_per_layer: Weight = Embedding(config.vocab_size_per_layer_input, packed)
            self.per_layer_model_projection = Linear(width, packed, bias=False)
            self.per_layer_projection_norm = Norm(per_layer, config.rms_norm_eps)

    def __call__(
        self,
        ids: mx.array,
        positions: mx.array,
        *,
        valid: mx.array | None = None,
        caches: Sequence[FullKVCache] | None = None,
        tap: Tap = unwatched,
        last_only: bool = False,
    ) -> mx.array:
        """norm(layers(embedding)): ids, positions [B, L] -> [B, L, D] in the weights' dtype; last_only: [B, 1, D]."""
        config = self.config
        h = embedding.scaled_embedding(ids, self.embed_tokens)  # [B, L, D]
        h = tap("model.embed_tokens", h)
        per_layer = self.per_layer_inputs(ids, h, tap) if config.hidden_size_per_layer_input > 0 else None
        frequencies = {config.layer_types[i]: rope.layer_frequencies(config, i) for i in self.first_of_each_type()}

        donors: dict[int, KV] = {}  # own-KV layer -> the KV that it attended to in this pass, with or without a cache
        for i, layer in enumerate(self.layers):
            if last_only and i == len(config.own_kv_layers):
                # From here on no layer writes keys, so nothing reads the hidden states of earlier positions.
                h, positions = h[:, -1:], positions[:, -1:]  # [B, 1, D], [B, 1]
                per_layer = None if per_layer is None else per_layer[:, -1:]  # [B, 1, N, P]
            donor = config.kv_donor(i)
            own = donor == i
            h, kv = layer(
                h,
                positions,
                frequencies[config.layer_types[i]],
                valid=valid,
                ple_slice=None if per_layer is None else per_layer[:, :, i],  # [B, L, P]
                shared=None if own else donors[donor],
                cache=caches[i] if own and caches is not None else None,
                tap=scope(tap, f"model.layers.{i}."),
            )
            if own:
                donors[i] = kv
        h = self.norm(h[:, -1:] if last_only else h)
        return tap("model.norm", h)

    def per_layer_inputs(self, ids: mx.array, h: mx.array, tap: Tap = unwatched) -> mx.array:
        """`ple.per_layer_inputs` with this model's weights: ids [B, L], h [B, L, D] -> [B, L, N, P]."""
        norm = self.per_layer_projection_norm
        return ple.per_layer_inputs(
            ids,
            h,
            self.embed_tokens_per_layer,
            self.per_layer_model_projection,
            norm.weight,
            norm.eps,
            self.config.num_hidden_layers,
            tap,
        )

    def first_of_each_type(self) -> list[int]:
        """The first layer of each layer type: RoPE's frequencies depend on the type only."""
        kinds = self.config.layer_types
        return [i for i, kind in enumerate(kinds) if kinds.index(kind) == i]


class Decoder(Block):
    """The text decoder: parameter names are those of `Gemma4ForCausalLM`'s state dict."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = TextModel(config)

    def __call__(
        self,
        ids: mx.array,
        positions: mx.array | None = None,
        valid: mx.array | None = None,
        caches: Sequence[FullKVCache] | None = None,
        tap: Tap = unwatched,
        last_only: bool = False,
    ) -> mx.array:
        """softcap(norm(h) embed^T): ids [B, L] integers -> logits [B, L, V] in the weights' dtype.

        positions [B, L] default to the caches' offset + 0..L-1, taken before any cache is updated; a padded batch must
        bring its own. valid [B, L] bool marks real tokens (False: left padding). caches come from `make_caches` and are
        updated in place. With last_only the logits are those of the last position, [B, 1, V], and so are the taps of
        KV-shared layers, which compute no other position. Raises MlxImplError for shapes and caches that do not fit.
        """
        if caches is not None:
            self.check_caches(caches)
        at = pass_positions(ids, positions, valid, caches)  # [B, L]
        h = self.model(ids, at, valid=valid, caches=caches, tap=tap, last_only=last_only)  # [B, L, D]
        raw = params.unembed(h, self.model.embed_tokens)  # the tied embedding, unscaled: [B, L, V]
        raw = tap("logits.raw", raw)
        logits = softcap(raw, self.config.final_logit_softcapping)
        return tap("logits", logits)

    def make_caches(self) -> list[FullKVCache]:
        """Fresh caches for this model, one per own-KV layer."""
        return kv_cache.make_caches(self.config)

    def check_caches(self, caches: Sequence[FullKVCache]) -> None:
        """Raise MlxImplError for caches of another model, and for caches that a broken pass left with other offsets."""
        count = len(self.config.own_kv_layers)
        if len(caches) != count:
            raise problem(
                "caches", got=str(len(caches)), expected=f"{count}, one per own-KV layer", cure="use make_caches()"
            )
        offsets = {cache.offset for cache in caches}
        if len(offsets) > 1:
            raise problem("caches", got=f"offsets {sorted(offsets)}", expected="one", cure="start with fresh caches")
