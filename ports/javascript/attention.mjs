// Attention: queries in groups, causal or within a window, by positions. The scores are not scaled.

import { mistaken } from "./mistakes.mjs";
import { tensor, zeros } from "./tensor.mjs";

/**
 * Which keys each query sees: positions [B, L] of queries and [B, S] of keys -> [B, L, S].
 *
 * A key is seen when it is no pad, not in the future, and among the last `window` positions, the query's included.
 */
export function attentionMask(queryPositions, keyPositions, keysValid, window) {
  const [batch, length] = queryPositions.shape;
  const keys = keyPositions.shape[1];
  const reach = mistaken("sliding-window-one-more") && window !== null ? window + 1 : window;
  const mask = tensor([batch, length, keys], new Uint8Array(batch * length * keys));
  for (let b = 0; b < batch; b++) {
    for (let l = 0; l < length; l++) {
      for (let s = 0; s < keys; s++) {
        const distance = queryPositions.data[b * length + l] - keyPositions.data[b * keys + s];
        const near = distance >= 0 && (reach === null || distance < reach);
        mask.data[(b * length + l) * keys + s] = near && keysValid.data[b * keys + s] ? 1 : 0;
      }
    }
  }
  return mask;
}

/** Softmax of scores, in place: 0 where `mask` is 0, and everywhere if it is 0 everywhere. */
export function softmax(scores, mask, round) {
  let peak = -Infinity;
  scores.forEach((score, i) => (peak = mask[i] ? Math.max(peak, score) : peak));
  let total = 0;
  scores.forEach((score, i) => (total += scores[i] = mask[i] ? Math.exp(score - peak) : 0));
  scores.forEach((weight, i) => (scores[i] = total === 0 ? 0 : round(weight / total)));
}

/**
 * softmax(q k^T) v: q [B, H, L, E], k and v [B, K, S, E], mask [B, L, S].
 *
 * Gives context [B, H, L, E] and probs [B, H, L, S]. Query head h reads key/value head h // (H/K).
 */
export function attend(q, k, v, mask, round) {
  const [batch, heads, length, headDim] = q.shape;
  const [, kvHeads, keys] = k.shape;
  const context = zeros(q.shape); // [B, H, L, E]
  const probs = zeros([batch, heads, length, keys]); // [B, H, L, S]
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const kv = (b * kvHeads + Math.floor((h * kvHeads) / heads)) * keys * headDim; // where this head's keys begin
      for (let l = 0; l < length; l++) {
        const query = ((b * heads + h) * length + l) * headDim;
        const row = probs.data.subarray((query / headDim) * keys, (query / headDim + 1) * keys); // [S]
        for (let s = 0; s < keys; s++) {
          let score = 0;
          for (let e = 0; e < headDim; e++) score += q.data[query + e] * k.data[kv + s * headDim + e];
          row[s] = round(score);
        }
        softmax(row, mask.data.subarray((b * length + l) * keys, (b * length + l + 1) * keys), round);
        for (let e = 0; e < headDim; e++) {
          let sum = 0;
          for (let s = 0; s < keys; s++) sum += row[s] * v.data[kv + s * headDim + e];
          context.data[query + e] = round(sum);
        }
      }
    }
  }
  return { context, probs };
}
