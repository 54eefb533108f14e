// Per-layer embeddings (PLE): every layer's own view of the token, and the gate that lets it in.

import { gelu } from "./mlp.mjs";
import { mistaken } from "./mistakes.mjs";
import { rmsNorm } from "./norm.mjs";
import { add, linear, multiply, reshape, rowsOf, scale, slice } from "./tensor.mjs";

/**
 * What all layers get: [B, L, N, P].
 *
 * ids [B, L], h [B, L, D] the scaled embedding, table [V, N*P], projection [N*P, D], norm [P].
 */
export function perLayerInputs(ids, h, { table, projection, norm, layers, eps }, round, record) {
  const width = table.shape[1] / layers;
  const shape = [...ids.shape, layers, width]; // B L N P
  const rows = reshape(scale(rowsOf(table, ids), round(Math.sqrt(width)), round), shape); // [B, L, N*P] -> [B, L, N, P]
  record("model.embed_tokens_per_layer", rows);
  const projected = scale(linear(h, projection, round), round(h.shape.at(-1) ** -0.5), round); // [B, L, N*P]
  const context = rmsNorm(reshape(projected, shape), norm, eps, round); // [B, L, N, P]
  record("model.per_layer_projection_norm", context);
  const sum = add(context, rows, round);
  const combined = mistaken("ple-combine-scale-missing") ? sum : scale(sum, round(Math.SQRT1_2), round);
  record("model.ple", combined);
  return combined;
}

/** One layer's part: [B, L, N, P] -> [B, L, P]. */
export function sliceOf(inputs, layer) {
  const [batch, length, , width] = inputs.shape;
  return reshape(slice(inputs, 2, layer, layer + 1), [batch, length, width]);
}

/** gelu(h W^T) * the layer's slice: h [B, L, D], slice [B, L, P], weight [P, D] -> [B, L, P]. */
export function gate(h, layerInput, weight, round) {
  return multiply(gelu(linear(h, weight, round), round), layerInput, round);
}
