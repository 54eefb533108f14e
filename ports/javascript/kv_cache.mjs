// Keys and values, and the cache that keeps all of them: which of them a query sees is the mask's business.
//
// Keys and values are { keys, values: [B, K, S, E], positions, valid: [B, S] }.

import { concatenate } from "./tensor.mjs";

export class KVCache {
  #layers = new Map();

  /** Appends what a layer has made; gives all that its queries may see. */
  update(layer, made) {
    const before = this.#layers.get(layer);
    const all = before === undefined ? made : followedBy(before, made);
    this.#layers.set(layer, all);
    return all;
  }
}

const followedBy = (old, made) => ({
  keys: concatenate([old.keys, made.keys], 2), // along S
  values: concatenate([old.values, made.values], 2),
  positions: concatenate([old.positions, made.positions], 1),
  valid: concatenate([old.valid, made.valid], 1),
});
