// The token embedding, scaled by the root of its width.

import { mistaken } from "./mistakes.mjs";
import { rowsOf, scale } from "./tensor.mjs";

/** table[ids] * sqrt(D): ids [B, L], table [V, D] -> [B, L, D]. The root is rounded before it multiplies. */
export function embed(ids, table, round) {
  const rows = rowsOf(table, ids); // [B, L, D]
  if (mistaken("embed-scale-missing")) return rows;
  return scale(rows, round(Math.sqrt(table.shape[1])), round);
}
