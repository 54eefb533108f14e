// The gated MLP: down(gelu(gate x) * up x).

import { erf } from "./erf.mjs";
import { mistaken } from "./mistakes.mjs";
import { linear, map, multiply } from "./tensor.mjs";

const ROOT = Math.sqrt(2 / Math.PI);

const tanhForm = (x) => 0.5 * x * (1 + Math.tanh(ROOT * (x + 0.044715 * x ** 3)));
const erfForm = (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)); // a mistake

/** GELU in its tanh form. */
export const gelu = (x, round) => map(x, mistaken("gelu-erf") ? erfForm : tanhForm, round);

/** gelu(gate x) * up x: x [..., D], gate and up [F, D] -> [..., F]. */
export function activation(x, gate, up, round) {
  return multiply(gelu(linear(x, gate, round), round), linear(x, up, round), round);
}
