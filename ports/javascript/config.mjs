// The configuration of the text decoder: config.json, nested or flat, and what follows from it for each layer.

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { mistaken } from "./mistakes.mjs";

const FULL = "full_attention";
const SLIDING = "sliding_attention";

/** RoPE of a checkpoint that does not say. */
const FAMILY_ROPE = {
  [FULL]: { rope_type: "proportional", rope_theta: 1e6, partial_rotary_factor: 0.25 },
  [SLIDING]: { rope_type: "default", rope_theta: 1e4 },
};

export const readConfig = (folder) => parseConfig(JSON.parse(readFileSync(join(folder, "config.json"), "utf8")));

/** The fields that the decoder needs, under their own names, every optional one filled in. */
export function parseConfig(json) {
  const text = json.text_config ?? json;
  const config = {
    ...text,
    global_head_dim: text.global_head_dim ?? 512,
    num_global_key_value_heads: text.num_global_key_value_heads ?? null,
    rope_parameters: text.rope_parameters ?? FAMILY_ROPE,
    final_logit_softcapping: text.final_logit_softcapping ?? null,
    hidden_size_per_layer_input: text.hidden_size_per_layer_input ?? 0,
    num_kv_shared_layers: text.num_kv_shared_layers ?? 0,
    attention_k_eq_v: text.attention_k_eq_v ?? false,
    use_double_wide_mlp: text.use_double_wide_mlp ?? false,
    enable_moe_block: text.enable_moe_block ?? false, // this alone says whether there are experts
    moe_intermediate_size: text.moe_intermediate_size ?? text.expert_intermediate_size ?? null,
    shapes: perLayerShapes(text.per_layer_config ?? {}),
  };
  check(config);
  return config;
}

/** `per_layer_config`: a layer's number ("5", "05") -> its head_dim and num_key_value_heads. */
const perLayerShapes = (table) => new Map(Object.entries(table).map(([layer, shape]) => [Number(layer), shape]));

function check(config) {
  const { layer_types, num_hidden_layers } = config;
  if (!Array.isArray(layer_types) || layer_types.length !== num_hidden_layers) {
    throw new Error(`layer_types: got ${layer_types?.length} entries, expected num_hidden_layers ${num_hidden_layers}`);
  }
  const last = layer_types.at(-1);
  if (last !== FULL) throw new Error(`layer_types: got ${last} at the end, expected ${FULL}`);
  const without = layer_types.findIndex((_, layer) => kvDonor(config, layer) === -1);
  if (without >= 0) throw new Error(`layer ${without}: no earlier layer of its type has keys and values to share`);
}

export const isSliding = (config, layer) => config.layer_types[layer] === SLIDING;

/** How many keys a query sees, its own included; null without a limit. */
export const windowOf = (config, layer) => (isSliding(config, layer) ? config.sliding_window : null);

/** Whether the layer's values are its raw key projection: `attention_k_eq_v`, on full layers only. */
export const keysAreValues = (config, layer) => config.attention_k_eq_v && !isSliding(config, layer);

/** E of a layer. */
export const headDimOf = (config, layer) =>
  config.shapes.get(layer)?.head_dim ?? (isSliding(config, layer) ? config.head_dim : config.global_head_dim);

/** K of a layer. */
export const kvHeadsOf = (config, layer) =>
  config.shapes.get(layer)?.num_key_value_heads ??
  (keysAreValues(config, layer) ? config.num_global_key_value_heads : null) ??
  config.num_key_value_heads;

/** RoPE of a layer, with the factor that `default` leaves out. */
export function ropeOf(config, layer) {
  const { rope_theta, rope_type, partial_rotary_factor } = config.rope_parameters[config.layer_types[layer]];
  return { rope_theta, rope_type, partial_rotary_factor: partial_rotary_factor ?? 1 };
}

const firstShared = (config) => config.num_hidden_layers - config.num_kv_shared_layers;

/** Whether the layer uses another layer's keys and values. */
export const isKvShared = (config, layer) => layer >= firstShared(config);

/** The layer whose keys and values this one uses: itself, or the last layer of its type before the shared ones. */
export function kvDonor(config, layer) {
  if (!isKvShared(config, layer)) return layer;
  const own = config.layer_types.slice(0, firstShared(config));
  if (mistaken("donor-first-of-type")) return own.indexOf(config.layer_types[layer]);
  return own.lastIndexOf(config.layer_types[layer]);
}

/** F of a layer's MLP. */
export const mlpWidthOf = (config, layer) =>
  config.intermediate_size * (config.use_double_wide_mlp && isKvShared(config, layer) ? 2 : 1);
