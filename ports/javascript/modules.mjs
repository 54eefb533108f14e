// Module cases: one module on given inputs. Each is (params, inputs, round) -> taps.

import { attend, attentionMask } from "./attention.mjs";
import { headDimOf, kvDonor, parseConfig, ropeOf } from "./config.mjs";
import { embed } from "./embedding.mjs";
import { softcap } from "./logits.mjs";
import { activation, gelu } from "./mlp.mjs";
import { combineWeights, experts, routerLogits } from "./moe.mjs";
import { rmsNorm } from "./norm.mjs";
import { perLayerInputs } from "./ple.mjs";
import { inverseFrequencies, rotate } from "./rope.mjs";
import { q, weightsOf } from "./rule.mjs";
import { linear, map, ones, reshape, swapMiddle, tensor } from "./tensor.mjs";

export const MODULES = {
  echo(_, tensors) {
    const [rows, length] = tensors.ids.shape;
    const sumOf = (_, row) => tensors.ids.data.subarray(row * length, (row + 1) * length).reduce((a, b) => a + b);
    return { ...tensors, sum: tensor([rows], new Int32Array(rows).map(sumOf)) }; // [B, L] -> [B]
  },

  weights(params) {
    const hashed = q(params.name, params.first, params.count);
    return { q: tensor([params.count], hashed), y: tensor([params.count], weightsOf(hashed, params)) };
  },

  linear: (_, { x, weight }, round) => ({ y: linear(x, weight, round) }),

  rms_norm: ({ eps }, { x, weight }, round) => ({ y: rmsNorm(x, weight, eps, round) }),

  rope(params, { x, positions }, round) {
    const frequencies = inverseFrequencies(x.shape.at(-1), params, round); // [E/2]
    return { y: rotate(x, positions, frequencies, round) };
  },

  inv_freq({ config: json, layer_type }, _, round) {
    const config = parseConfig(json);
    const layer = config.layer_types.indexOf(layer_type);
    return { inv_freq: inverseFrequencies(headDimOf(config, layer), ropeOf(config, layer), round) };
  },

  shared_kv_donors({ config: json }) {
    const config = parseConfig(json);
    const count = config.num_hidden_layers;
    return { donors: tensor([count], new Int32Array(count).map((_, layer) => kvDonor(config, layer))) };
  },

  embedding: (_, { ids, table }, round) => ({ y: embed(ids, table, round) }),

  ple({ eps, num_layers: layers }, { ids, h, table, projection, norm }, round) {
    const taps = {};
    perLayerInputs(ids, h, { table, projection, norm, layers, eps }, round, (name, value) => (taps[name] = value));
    return taps;
  },

  ple_index({ num_layers, width, id, layer, channel }) {
    const offset = (id * num_layers + layer) * width + channel; // beyond 2^31: never in 32 bits
    const digits = new TextEncoder().encode(String(offset));
    return { offset: tensor([digits.length], digits) };
  },

  attention_core({ window }, { q, k, v, q_positions, k_positions }, round) {
    const mask = attentionMask(q_positions, k_positions, ones(k_positions.shape), window); // [B, L, S]
    const { context } = attend(q, k, v, mask, round); // [B, H, L, E]
    const [batch, heads, length, headDim] = context.shape;
    return { context: reshape(swapMiddle(context), [batch, length, heads * headDim]) }; // [B, L, H*E]
  },

  mlp(_, { x, gate, up, down }, round) {
    const act = activation(x, gate, up, round); // [B, L, F]
    return { act, y: linear(act, down, round) }; // [B, L, D]
  },

  gelu_tanh: (_, { x }, round) => ({ y: gelu(x, round) }),

  router({ eps, top_k }, { h, scale, proj, per_expert_scale }, round) {
    const logits = routerLogits(h, { scale, proj, eps }, round); // [B, L, X]
    return { proj: logits, combine: combineWeights(logits, per_expert_scale, top_k, round) };
  },

  experts: (_, { x, combine, gate_up, down }, round) => ({ y: experts(x, combine, gate_up, down, round) }),

  softcap: ({ cap }, { x }, round) => ({ y: softcap(x, cap, round) }),

  long_sum(_, { x }, round) {
    const [batch, length] = x.shape;
    const sum = (_, b) => round(x.data.subarray(b * length, (b + 1) * length).reduce((total, term) => total + term, 0));
    return { y: tensor([batch], new Float64Array(batch).map(sum)) }; // [B, L] -> [B]
  },

  exp_tanh: (_, { x }, round) => ({ exp: map(x, Math.exp, round), tanh: map(x, Math.tanh, round) }),
};
