// The soft cap of the logits.

import { mistaken } from "./mistakes.mjs";
import { map } from "./tensor.mjs";

/** cap * tanh(x / cap); x itself where there is no cap. */
export function softcap(x, cap, round) {
  if (cap === null || mistaken("softcap-missing")) return x;
  return map(x, (value) => cap * Math.tanh(value / cap), round);
}
