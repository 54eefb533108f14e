// Mixture of experts: the router, and the weighted sum over the experts that it chose.

import { softmax } from "./attention.mjs";
import { mistaken } from "./mistakes.mjs";
import { activation } from "./mlp.mjs";
import { rmsNorm } from "./norm.mjs";
import { entry, linear, slice, tensor, zeros } from "./tensor.mjs";

/** (rms_norm(h) * scale / sqrt(D)) W^T: h [B, L, D] is the stream itself, scale [D], proj [X, D] -> [B, L, X]. */
export function routerLogits(h, { scale, proj, eps }, round) {
  const width = h.shape.at(-1);
  const root = round(width ** -0.5);
  const normed = rmsNorm(h, null, eps, round); // [B, L, D]
  const scaled = normed.data.map((value, i) => round(round(value * scale.data[i % width]) * root));
  return linear(tensor(h.shape, scaled), proj, round); // [B, L, X]
}

/** Softmax over all experts, the top k renormalised to sum 1, times the expert's scale, 0 elsewhere: [B, L, X]. */
export function combineWeights(logits, perExpertScale, topK, round) {
  const experts = logits.shape.at(-1);
  const everyone = new Uint8Array(experts).fill(1);
  const combine = zeros(logits.shape); // [B, L, X]
  for (let start = 0; start < logits.data.length; start += experts) {
    const probs = logits.data.slice(start, start + experts);
    softmax(probs, everyone, round);
    const ranked = [...probs.keys()].sort((a, b) => probs[b] - probs[a]); // stable: of equals, the lower index first
    const chosen = ranked.slice(0, topK);
    const total = mistaken("router-not-renormalised") ? 1 : round(chosen.reduce((sum, e) => sum + probs[e], 0));
    for (const e of chosen) combine.data[start + e] = round(round(probs[e] / total) * perExpertScale.data[e]);
  }
  return combine;
}

/**
 * sum_e combine_e * down_e(gelu(gate_e x) * up_e x): x [B, L, D], combine [B, L, X], gateUp [X, 2F, D], down [X, D, F].
 *
 * The fused matrix holds the gate in its first F rows, and up in the other F.
 */
export function experts(x, combine, gateUp, down, round) {
  const [count, both, width] = gateUp.shape; // X, 2F, D
  const y = zeros(x.shape); // [B, L, D]
  for (let row = 0; row < x.data.length / width; row++) {
    const token = tensor([width], x.data.subarray(row * width, (row + 1) * width)); // [D]
    for (let e = 0; e < count; e++) {
      const weight = combine.data[row * count + e];
      if (weight === 0) continue;
      const gate = slice(entry(gateUp, e), 0, 0, both / 2); // [F, D]
      const up = slice(entry(gateUp, e), 0, both / 2, both); // [F, D]
      const made = linear(activation(token, gate, up, round), entry(down, e), round); // [D]
      const sum = y.data.subarray(row * width, (row + 1) * width); // [D]
      made.data.forEach((value, i) => (sum[i] = round(sum[i] + round(value * weight))));
    }
  }
  return y;
}
