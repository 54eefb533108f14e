"""transformers' Gemma 4 decoder as a reference: whole forwards under a plan, and single layers teacher-forced."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from gemma4_contract.subgraph import Subgraph, answerable
from reference.transformers_model.arrays import TORCH_DTYPES, Array, DType, to_torch
from reference.transformers_model.build import Attention, build_model
from reference.transformers_model.capture import Taps, recording
from reference.transformers_model.lift import lifting
from reference.transformers_model.plans import calls_of, join


class TransformersModel:
    """transformers' own Gemma4ForCausalLM built from a text configuration and weights, with its taps captured."""

    def __init__(
        self,
        text_config: Mapping[str, Any],
        weights: Mapping[str, Array],
        *,
        dtype: DType,
        attention: Attention,
        lifted: bool = False,
    ) -> None:
        """Build the model; `lifted` computes in float64 what transformers keeps in float32 in a float64 model.

        Args:
            text_config: the fields of a config.json's `text_config`.
            weights: float arrays under the names of Gemma4ForCausalLM's state dict. The tied head may be left out;
                K/V weights of KV-shared layers are ignored.
            dtype: of the weights and of every tap.
            attention: transformers' attention implementation; only "eager" gives `self_attn.probs`.
            lifted: needs dtype "float64" and attention "eager".

        Raises:
            ValueError: for an unsuitable configuration, names or shapes of weights, or a `lifted` that cannot be.
        """
        if lifted and (dtype, attention) != ("float64", "eager"):
            raise ValueError(f"lifted: got dtype {dtype} and attention {attention}, expected float64 and eager")
        self._dtype = TORCH_DTYPES[dtype]
        self._eager = attention == "eager"
        self._lifted = lifted
        self._model = build_model(text_config, weights, self._dtype, attention, lifted=lifted)

    def run(
        self, ids: Array, *, positions: Array, steps: Sequence[int] | None, left_pad: Sequence[int] | None
    ) -> dict[str, Array]:
        """Run the decoder on `ids` under a plan and return all taps, joined over the plan's steps.

        Args:
            ids: integers B L, pads 0.
            positions: integers B L, pads 0.
            steps: None for one call without a cache, else the number of tokens of each call on a fresh cache.
            left_pad: how many first ids of each row are pads, or None. Rows at pads are garbage in every tap.

        Returns:
            Taps of docs/FIXTURES.md in this model's dtype (`router.combine`, which transformers keeps in float32, is
            rounded to it); `self_attn.probs` only from an eager model without steps or pads.

        Raises:
            ValueError: if the arguments do not fit each other, or pads meet an unlifted eager float64 model, in which
                transformers makes NaN of them.
        """
        calls = calls_of(ids, positions, steps, left_pad)
        if any(left_pad or ()) and self._eager and self._dtype == torch.float64 and not self._lifted:
            raise ValueError("left_pad: eager attention in unlifted float64 turns pads into NaN; use lifted, or sdpa")
        cache = None if steps is None else DynamicCache(config=self._model.config)
        probs = self._eager and steps is None and left_pad is None
        parts = []
        for call in calls:
            with torch.inference_mode(), lifting(self._lifted), recording(self._dtype) as recorder:
                recorder.model(self._model)
                for index in range(len(self._model.model.layers)):
                    recorder.layer(self._model, index, probs=probs)
                self._model(
                    input_ids=torch.tensor(ids[:, call.rows], dtype=torch.int64),
                    position_ids=torch.tensor(positions[:, call.rows], dtype=torch.int64),
                    attention_mask=torch.tensor(call.mask),
                    past_key_values=cache,
                    use_cache=cache is not None,
                )
            parts.append(recorder.taps)
        return join(parts)

    def run_subgraph(self, question: Subgraph) -> dict[str, Array]:
        """Run one decoder layer without a cache, its own taps overwritten in place by what is given for them.

        Returns the taps that it computed from that, under their full names: not `self_attn.context` where `probs` are
        given, which attention multiplies before it shows them; and in models without PLE neither `residual_2`, which
        no module takes, nor `output` where it is given.

        Raises:
            ValueError: if an input is missing, superfluous or misshapen.
        """
        layer, positions = question.layer, question.positions
        module, config = self._model.model.layers[layer], self._model.config
        _check_inputs(question, module, config)
        ple = question.ple(config.hidden_size_per_layer_input)
        with torch.inference_mode(), lifting(self._lifted), recording(self._dtype, given=question.given) as recorder:
            recorder.layer(self._model, layer, probs=self._eager)
            module(
                to_torch(question.hidden, self._dtype).clone(),  # overwriting must not reach the question
                None if ple is None else to_torch(ple, self._dtype),
                past_key_values=None,
                **self._surroundings(layer, question.hidden, positions, question.donated),
            )
        taps: Taps = recorder.taps
        return {name: taps[name] for name in answerable(question, taps, recorder.replaced)}

    def _surroundings(
        self, layer: int, hidden: Array, positions: Array, shared_kv: tuple[Array, Array] | None
    ) -> dict[str, Any]:
        """The arguments of a layer besides the hidden state: angles, mask, positions, the donors' K and V."""
        inner = self._model.model
        layer_type = inner.config.layer_types[layer]
        make_mask = create_sliding_window_causal_mask if layer_type == "sliding_attention" else create_causal_mask
        hidden_states = to_torch(hidden, self._dtype)
        position_ids = torch.tensor(positions, dtype=torch.int64)
        mask = make_mask(
            config=inner.config,
            inputs_embeds=hidden_states,
            attention_mask=torch.ones(hidden_states.shape[:2], dtype=torch.bool),
            past_key_values=None,
            position_ids=position_ids,
        )
        donated = None if shared_kv is None else tuple(to_torch(array, self._dtype) for array in shared_kv)
        return {
            "shared_kv_states": {} if donated is None else {layer_type: donated},
            "position_embeddings": inner.rotary_emb(hidden_states, position_ids, layer_type),
            "attention_mask": mask,
            "position_ids": position_ids,
        }


def _check_inputs(question: Subgraph, module: Any, config: Any) -> None:
    """Raise ValueError unless the inputs are what the layer needs."""
    hidden, rows = question.hidden, question.hidden.shape[:2]
    if hidden.ndim != 3 or hidden.shape[-1] != config.hidden_size:
        raise ValueError(f"hidden: got shape {hidden.shape}, expected B L {config.hidden_size}")
    if question.positions.shape != rows:
        raise ValueError(f"positions: got shape {question.positions.shape}, expected {rows}")
    _check_donated(module.self_attn, config, rows, question.donated)


def _check_donated(attention: Any, config: Any, rows: tuple[int, ...], shared_kv: tuple[Array, Array] | None) -> None:
    """Raise ValueError unless keys and values are given exactly where the layer shares a donor's, in their shape."""
    shared = attention.is_kv_shared_layer
    if (shared_kv is not None) != shared:
        raise ValueError(f"shared_kv: expected {'the keys and values of the donor' if shared else 'None'}")
    for name, array in zip(("keys", "values"), shared_kv or (), strict=False):
        kv_heads = config.num_attention_heads // attention.num_key_value_groups
        expected = (rows[0], kv_heads, rows[1], attention.head_dim)
        if array.shape != expected:
            raise ValueError(f"shared_kv {name}: got shape {array.shape}, expected {expected}")
