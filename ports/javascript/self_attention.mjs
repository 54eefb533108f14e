// The attention of one layer: its projections and norms, keys and values of its own or of a donor.

import { attend, attentionMask } from "./attention.mjs";
import { headDimOf, keysAreValues, ropeOf, windowOf } from "./config.mjs";
import { mistaken } from "./mistakes.mjs";
import { rmsNorm } from "./norm.mjs";
import { inverseFrequencies, rotate } from "./rope.mjs";
import { linear, reshape, swapMiddle } from "./tensor.mjs";

/**
 * x [B, L, D], normalised -> output [B, L, D], and the keys and values that were attended to.
 *
 * `shared` are the donor's keys and values, null for a layer that makes its own. `pass` says what is the same for all
 * layers of a call: positions and valid [B, L], the cache or null, round and record.
 */
export function selfAttention(model, layer, x, shared, pass) {
  const { positions, cache, round } = pass;
  const at = scope(model, layer, pass);
  const q = queries(at, x, pass); // [B, H, L, E]
  let attended = shared;
  if (attended === null) {
    attended = keysAndValues(at, x, pass);
    if (cache) attended = cache.update(layer, attended);
  }
  const mask = attentionMask(positions, attended.positions, attended.valid, windowOf(model.config, layer)); // [B, L, S]
  const { context, probs } = attend(q, attended.keys, attended.values, mask, round); // [B, H, L, E], [B, H, L, S]
  if (!cache) {
    at.record("k_read", attended.keys); // [B, K, S, E]
    at.record("v_read", attended.values);
    at.record("probs", probs);
  }
  const [batch, heads, length, headDim] = context.shape;
  const joined = reshape(swapMiddle(context), [batch, length, heads * headDim]); // [B, H, L, E] -> [B, L, H*E]
  at.record("context", joined);
  const output = linear(joined, at.weight("o_proj"), round); // [B, L, D]
  at.record("o_proj", output);
  return { output, attended };
}

/** This layer's view of weights, taps and RoPE. */
function scope({ config, weights }, layer, { record, round }) {
  const prefix = `model.layers.${layer}.self_attn.`;
  const headDim = headDimOf(config, layer);
  return {
    headDim,
    eps: config.rms_norm_eps,
    keysAreValues: keysAreValues(config, layer),
    frequencies: inverseFrequencies(headDim, ropeOf(config, layer), round), // [E/2]
    weight: (name) => weights[`${prefix}${name}.weight`],
    record: (name, value) => record(prefix + name, value),
  };
}

function queries(at, x, { positions, round }) {
  const q = rmsNorm(heads(x, at.weight("q_proj"), at.headDim, round), at.weight("q_norm"), at.eps, round);
  at.record("q_norm", q);
  const turned = rotate(q, positions, at.frequencies, round);
  at.record("q_rope", turned);
  return turned; // [B, H, L, E]
}

function keysAndValues(at, x, { positions, valid, round }) {
  const raw = heads(x, at.weight("k_proj"), at.headDim, round); // [B, K, L, E]
  const k = rmsNorm(raw, at.weight("k_norm"), at.eps, round);
  at.record("k_norm", k);
  const keys = rotate(k, positions, at.frequencies, round);
  at.record("k_rope", keys);
  const rawValues = at.keysAreValues ? raw : heads(x, at.weight("v_proj"), at.headDim, round); // [B, K, L, E]
  const values = mistaken("v-norm-missing") ? rawValues : rmsNorm(rawValues, null, at.eps, round); // never turned
  at.record("v_norm", values);
  return { keys, values, positions, valid };
}

/** x W^T cut into heads: x [B, L, D], weight [H*E, D] -> [B, H, L, E]. */
function heads(x, weight, headDim, round) {
  const y = linear(x, weight, round); // [B, L, H*E]
  const [batch, length, width] = y.shape;
  return swapMiddle(reshape(y, [batch, length, width / headDim, headDim])); // [B, L, H, E] -> [B, H, L, E]
}
