// One decoder layer: attention, feed-forward (with experts beside it in MoE models), PLE branch, layer scalar.

import { activation } from "./mlp.mjs";
import { mistaken } from "./mistakes.mjs";
import { combineWeights, experts, routerLogits } from "./moe.mjs";
import { rmsNorm } from "./norm.mjs";
import { gate } from "./ple.mjs";
import { selfAttention } from "./self_attention.mjs";
import { add, linear, scale as scaled } from "./tensor.mjs";

/**
 * h [B, L, D] -> output [B, L, D], and the keys and values that were attended to.
 *
 * `layerInput` [B, L, P] is the layer's slice of the PLE, null without; `shared` and `pass` as in selfAttention.
 */
export function decoderLayer(model, layer, h, layerInput, shared, pass) {
  const at = scope(model, layer, pass);
  const { output: mixed, attended } = selfAttention(model, layer, at.norm("input_layernorm", h), shared, pass);
  h = add(h, at.norm("post_attention_layernorm", mixed), at.round);
  at.record("residual_1", h);
  h = add(h, feedForward(at, h), at.round);
  at.record("residual_2", h);
  if (layerInput !== null) h = add(h, perLayerBranch(at, h, layerInput), at.round);
  if (!mistaken("layer-scalar-dropped")) h = scaled(h, at.weight("layer_scalar").data[0], at.round);
  at.record("output", h);
  return { output: h, attended };
}

/** This layer's view of weights and taps. A norm's tap has the norm's name. */
function scope({ config, weights }, layer, { record, round }) {
  const prefix = `model.layers.${layer}.`;
  const at = {
    config,
    round,
    weight: (name) => weights[prefix + name],
    record: (name, value) => record(prefix + name, value),
    norm: (name, x) => {
      const y = rmsNorm(x, at.weight(`${name}.weight`), config.rms_norm_eps, round);
      at.record(name, y);
      return y;
    },
  };
  return at;
}

/** [B, L, D] -> [B, L, D]; both the MLP and the experts read the stream h, each through a norm of its own. */
function feedForward(at, h) {
  const x = at.norm("pre_feedforward_layernorm", h);
  const act = activation(x, at.weight("mlp.gate_proj.weight"), at.weight("mlp.up_proj.weight"), at.round); // [B, L, F]
  at.record("mlp.act", act);
  let y = linear(act, at.weight("mlp.down_proj.weight"), at.round); // [B, L, D]
  at.record("mlp.down_proj", y);
  if (at.config.enable_moe_block) {
    const sparse = mixtureOfExperts(at, h);
    const dense = at.norm("post_feedforward_layernorm_1", y);
    y = add(dense, at.norm("post_feedforward_layernorm_2", sparse), at.round);
  }
  return at.norm("post_feedforward_layernorm", y);
}

/** [B, L, D] -> [B, L, D]; the router reads the stream itself. */
function mixtureOfExperts(at, h) {
  const [scale, proj] = [at.weight("router.scale"), at.weight("router.proj.weight")]; // [D], [X, D]
  const logits = routerLogits(h, { scale, proj, eps: at.config.rms_norm_eps }, at.round); // [B, L, X]
  at.record("router.proj", logits);
  const perExpertScale = at.weight("router.per_expert_scale");
  const combine = combineWeights(logits, perExpertScale, at.config.top_k_experts, at.round); // [B, L, X]
  at.record("router.combine", combine);
  const x = at.norm("pre_feedforward_layernorm_2", h);
  const y = experts(x, combine, at.weight("experts.gate_up_proj"), at.weight("experts.down_proj"), at.round);
  at.record("experts", y);
  return y;
}

/** [B, L, D] -> [B, L, D] */
function perLayerBranch(at, h, layerInput) {
  const gated = gate(h, layerInput, at.weight("per_layer_input_gate.weight"), at.round); // [B, L, P]
  at.record("ple_gated", gated);
  const y = linear(gated, at.weight("per_layer_projection.weight"), at.round); // [B, L, D]
  at.record("per_layer_projection", y);
  return at.norm("post_per_layer_input_norm", y);
}
