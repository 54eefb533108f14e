// RoPE: channel j of a head turns together with channel j + E/2, by position * theta^(-2j/E).
//
// Proportional RoPE (full layers) turns only the first `partial_rotary_factor` of these pairs. The exponent's denominator stays E.

import { mistaken } from "./mistakes.mjs";
import { tensor, zeros } from "./tensor.mjs";

/** The frequency of each pair: [E/2], zeros where nothing turns. */
export function inverseFrequencies(headDim, { rope_theta, rope_type, partial_rotary_factor }, round) {
  const pairs = headDim / 2;
  const turning = rope_type === "proportional" ? Math.floor(partial_rotary_factor * pairs) : pairs;
  const denominator = mistaken("prop-rope-denominator") ? 2 * turning : headDim;
  const frequency = (_, j) => (j < turning ? round(1 / rope_theta ** ((2 * j) / denominator)) : 0);
  return tensor([pairs], new Float64Array(pairs).map(frequency));
}

/** x [B, H, L, E] turned by positions [B, L] * frequencies [E/2]. */
export function rotate(x, positions, frequencies, round) {
  const [batch, heads, length, headDim] = x.shape;
  const pairs = headDim / 2;
  const y = zeros(x.shape);
  for (let b = 0; b < batch; b++) {
    for (let l = 0; l < length; l++) {
      for (let j = 0; j < pairs; j++) {
        const angle = round(positions.data[b * length + l] * frequencies.data[j]);
        const [cos, sin] = [round(Math.cos(angle)), round(Math.sin(angle))];
        for (let h = 0; h < heads; h++) {
          const at = ((b * heads + h) * length + l) * headDim + j;
          const [first, second] = [x.data[at], x.data[at + pairs]];
          y.data[at] = round(first * cos - second * sin);
          y.data[at + pairs] = round(second * cos + first * sin);
        }
      }
    }
  }
  return y;
}
