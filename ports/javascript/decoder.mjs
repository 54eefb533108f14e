// The decoder: embedding, layers, logits. A model is { config, weights }.

import { isKvShared, kvDonor, readConfig } from "./config.mjs";
import { embed } from "./embedding.mjs";
import { decoderLayer } from "./layer.mjs";
import { softcap } from "./logits.mjs";
import { rmsNorm } from "./norm.mjs";
import { perLayerInputs, sliceOf } from "./ple.mjs";
import { linear } from "./tensor.mjs";
import { readWeights } from "./weights.mjs";

/** The model of a checkpoint folder. */
export function loadModel(folder) {
  const config = readConfig(folder);
  return { config, weights: readWeights(folder, config) };
}

/**
 * Logits [B, L, V] of ids [B, L].
 *
 * `pass` holds positions [B, L], valid [B, L] (0 at pads), cache (a KVCache, or null), round, and record, which is
 * called with the name and tensor of every tap.
 */
export function forward({ config, weights }, ids, pass) {
  const { round, record } = pass;
  const table = weights["model.embed_tokens.weight"]; // [V, D]
  let h = embed(ids, table, round); // [B, L, D]
  record("model.embed_tokens", h);
  const inputs = config.hidden_size_per_layer_input ? layerInputs({ config, weights }, ids, h, pass) : null;
  const attended = []; // by layer: the keys and values that it attended to in this call
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const layerInput = inputs && sliceOf(inputs, layer); // [B, L, P]
    const shared = isKvShared(config, layer) ? attended[kvDonor(config, layer)] : null;
    const made = decoderLayer({ config, weights }, layer, h, layerInput, shared, pass);
    h = made.output; // [B, L, D]
    attended.push(made.attended);
  }
  h = rmsNorm(h, weights["model.norm.weight"], config.rms_norm_eps, round);
  record("model.norm", h);
  const raw = linear(h, table, round); // [B, L, D] -> [B, L, V]; the table as it is stored, unscaled
  record("logits.raw", raw);
  const logits = softcap(raw, config.final_logit_softcapping, round);
  record("logits", logits);
  return logits;
}

function layerInputs({ config, weights }, ids, h, { round, record }) {
  const parts = {
    table: weights["model.embed_tokens_per_layer.weight"], // [V, N*P]
    projection: weights["model.per_layer_model_projection.weight"], // [N*P, D]
    norm: weights["model.per_layer_projection_norm.weight"], // [P]
    layers: config.num_hidden_layers,
    eps: config.rms_norm_eps,
  };
  return perLayerInputs(ids, h, parts, round, record); // [B, L, N, P]
}
