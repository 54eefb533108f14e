// The tensors that a configuration needs: their names in Gemma4ForCausalLM's state dict and their shapes.

import { headDimOf, isKvShared, keysAreValues, kvHeadsOf, mlpWidthOf } from "./config.mjs";

/** Name -> shape. What a checkpoint holds besides (towers, k and v of KV-shared layers) is not asked for. */
export function parametersOf(config) {
  const { vocab_size, hidden_size, num_hidden_layers, hidden_size_per_layer_input: width } = config;
  const found = {
    "model.embed_tokens.weight": [vocab_size, hidden_size], // [V, D]; also the head
    "model.norm.weight": [hidden_size], // [D]
  };
  if (width) {
    const packed = num_hidden_layers * width; // N*P
    found["model.embed_tokens_per_layer.weight"] = [config.vocab_size_per_layer_input, packed]; // [V, N*P]
    found["model.per_layer_model_projection.weight"] = [packed, hidden_size]; // [N*P, D]
    found["model.per_layer_projection_norm.weight"] = [width]; // [P]
  }
  for (let layer = 0; layer < num_hidden_layers; layer++) {
    for (const [name, shape] of Object.entries(parametersOfLayer(config, layer))) {
      found[`model.layers.${layer}.${name}`] = shape;
    }
  }
  return found;
}

function parametersOfLayer(config, layer) {
  const { hidden_size, num_attention_heads, hidden_size_per_layer_input: width } = config;
  const headDim = headDimOf(config, layer);
  const ff = mlpWidthOf(config, layer);
  const queries = num_attention_heads * headDim; // H*E
  const norm = [hidden_size]; // [D]
  return {
    "input_layernorm.weight": norm,
    "self_attn.q_proj.weight": [queries, hidden_size], // [H*E, D]
    "self_attn.q_norm.weight": [headDim], // [E]
    ...(isKvShared(config, layer) ? {} : keysAndValues(config, layer)),
    "self_attn.o_proj.weight": [hidden_size, queries], // [D, H*E]
    "post_attention_layernorm.weight": norm,
    "pre_feedforward_layernorm.weight": norm,
    "mlp.gate_proj.weight": [ff, hidden_size], // [F, D]
    "mlp.up_proj.weight": [ff, hidden_size], // [F, D]
    "mlp.down_proj.weight": [hidden_size, ff], // [D, F]
    ...(config.enable_moe_block ? experts(config) : {}),
    "post_feedforward_layernorm.weight": norm,
    ...(width ? perLayerBranch(hidden_size, width) : {}),
    layer_scalar: [1],
  };
}

function keysAndValues(config, layer) {
  const headDim = headDimOf(config, layer);
  const projection = [kvHeadsOf(config, layer) * headDim, config.hidden_size]; // [K*E, D]
  const values = keysAreValues(config, layer) ? {} : { "self_attn.v_proj.weight": projection };
  return { "self_attn.k_proj.weight": projection, "self_attn.k_norm.weight": [headDim], ...values };
}

function experts({ hidden_size, num_experts, moe_intermediate_size: ff }) {
  const norm = [hidden_size]; // [D]
  return {
    "router.scale": norm,
    "router.proj.weight": [num_experts, hidden_size], // [X, D]
    "router.per_expert_scale": [num_experts], // [X]
    "pre_feedforward_layernorm_2.weight": norm,
    "experts.gate_up_proj": [num_experts, 2 * ff, hidden_size], // [X, 2F, D]
    "experts.down_proj": [num_experts, hidden_size, ff], // [X, D, F]
    "post_feedforward_layernorm_1.weight": norm,
    "post_feedforward_layernorm_2.weight": norm,
  };
}

function perLayerBranch(hidden_size, width) {
  return {
    "per_layer_input_gate.weight": [width, hidden_size], // [P, D]
    "per_layer_projection.weight": [hidden_size, width], // [D, P]
    "post_per_layer_input_norm.weight": [hidden_size], // [D]
  };
}
