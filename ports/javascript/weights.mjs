// The weights of a checkpoint folder, in any layout in circulation, under their names in Gemma4ForCausalLM's state
// dict. Every tensor that the configuration needs is looked up; all others are left alone.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { parametersOf } from "./parameters.mjs";
import { open } from "./safetensors.mjs";
import { concatenate } from "./tensor.mjs";

const PREFIXES = ["model.language_model.", "language_model.model.", "model."];
const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** Name -> tensor. */
export function readWeights(folder, config) {
  const stored = new Map(filesOf(folder).flatMap((file) => [...open(join(folder, file))]));
  const prefix = PREFIXES.find((candidate) => stored.has(`${candidate}embed_tokens.weight`));
  if (prefix === undefined) throw new Error(`${folder}: got no embed_tokens.weight under ${PREFIXES.join(", ")}`);
  const weights = {};
  for (const [name, shape] of Object.entries(parametersOf(config))) {
    const weight = find(stored, name.replace("model.", prefix));
    if (String(weight.shape) !== String(shape)) {
      throw new Error(`${name}: got shape [${weight.shape}], expected [${shape}]`);
    }
    weights[name] = weight;
  }
  return weights;
}

/** The single file, or the shards that the index names. */
function filesOf(folder) {
  if (existsSync(join(folder, SINGLE)) || !existsSync(join(folder, INDEX))) return [SINGLE];
  return [...new Set(Object.values(JSON.parse(readFileSync(join(folder, INDEX), "utf8")).weight_map))];
}

function find(stored, name) {
  const load = stored.get(name) ?? splitExperts(stored, name);
  if (load === undefined) throw new Error(`${name}: got no such tensor in the checkpoint`);
  return load();
}

/** mlx-community's layout of the experts: gate and up apart, each [X, F, D], and another name for down [X, D, F]. */
function splitExperts(stored, name) {
  const part = (which) => stored.get(name.replace(/experts\..*$/, `experts.switch_glu.${which}_proj.weight`));
  if (name.endsWith("experts.down_proj")) return part("down");
  if (!name.endsWith("experts.gate_up_proj") || !part("gate") || !part("up")) return undefined;
  return () => concatenate([part("gate")(), part("up")()], 1); // two [X, F, D] -> [X, 2F, D]
}
