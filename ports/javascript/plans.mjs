// Cases of a model: whole forward passes in the steps of a plan, one layer, one attention. Each gives its taps.

import { forward } from "./decoder.mjs";
import { KVCache } from "./kv_cache.mjs";
import { decoderLayer } from "./layer.mjs";
import { selfAttention } from "./self_attention.mjs";
import { concatenate, ones, slice } from "./tensor.mjs";

const HEADS = /\.self_attn\.(q_norm|q_rope|k_norm|k_rope|v_norm|k_read|v_read|probs)$/;

/** The axis of a tap that counts tokens: B H L E (or S) within attention, B L ... everywhere else. */
const lengthAxis = (name) => (HEADS.test(name) ? 2 : 1);

/** `steps` is null for one call without a cache, else the tokens of each call; the calls' taps are joined along L. */
export function forwardCase(model, { steps }, inputs, round, want) {
  const { ids, positions, valid = ones(ids.shape) } = inputs; // [B, L]
  const cache = steps ? new KVCache() : null;
  const calls = {};
  const record = (name, value) => {
    if (want.has(name)) (calls[name] ??= []).push(value);
  };
  let start = 0;
  for (const step of steps ?? [ids.shape[1]]) {
    const cut = (x) => slice(x, 1, start, start + step); // [B, L] -> [B, step]
    forward(model, cut(ids), { positions: cut(positions), valid: cut(valid), cache, round, record });
    start += step;
  }
  return Object.fromEntries(Object.entries(calls).map(([name, parts]) => [name, concatenate(parts, lengthAxis(name))]));
}

export function layerCase(model, { layer }, inputs, round) {
  const taps = {};
  decoderLayer(model, layer, inputs.hidden, inputs.ple ?? null, donated(inputs), passOf(inputs, taps, round));
  return taps;
}

export function attentionCase(model, { layer }, inputs, round) {
  const taps = {};
  selfAttention(model, layer, inputs.x, donated(inputs), passOf(inputs, taps, round));
  return taps;
}

function passOf({ positions }, taps, round) {
  const record = (name, value) => (taps[name] = value);
  return { positions, valid: ones(positions.shape), cache: null, round, record };
}

/** The donor's keys and values, which belong to the same positions. */
function donated({ k, v, positions }) {
  return k ? { keys: k, values: v, positions, valid: ones(positions.shape) } : null;
}
