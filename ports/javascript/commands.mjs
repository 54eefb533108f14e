// What the adapter answers to each command of the protocol, version 1.

import { loadModel } from "./decoder.mjs";
import { MODULES } from "./modules.mjs";
import { attentionCase, forwardCase, layerCase } from "./plans.mjs";
import { read, write } from "./safetensors.mjs";
import { PROFILES, tensor } from "./tensor.mjs";

const HELLO = {
  protocol: 1,
  implementation: { name: "gemma4-javascript", version: "0.1.0", language: "JavaScript" },
  family: "javascript",
  device: "cpu",
  profiles: Object.keys(PROFILES),
  internal: "f64", // what sums are kept in
  kinds: ["forward", "layer", "attention", ...Object.keys(MODULES)],
};

let model = null; // of the last "load"

const COMMANDS = {
  hello: () => HELLO,

  load({ model_dir }) {
    model = null; // should this one fail, no other answers in its place
    model = loadModel(model_dir);
    return { ok: true };
  },

  run({ seq, kind, profile, plan, params, inputs, want, out }) {
    if (!Object.hasOwn(PROFILES, profile)) return { seq, skipped: `no profile ${profile}` };
    if (!HELLO.kinds.includes(kind)) return { seq, skipped: `no kind ${kind}` };
    const tensors = inputs ? read(inputs) : {};
    const wanted = new Set(want);
    const start = performance.now();
    const taps = answer(kind, plan, params, tensors, PROFILES[profile], wanted);
    const ms = performance.now() - start;
    const kept = Object.entries(taps).filter(([name]) => wanted.has(name));
    write(out, Object.fromEntries(kept.map(([name, value]) => [name, stored(value, profile)])));
    return { seq, ok: true, ms };
  },

  async prompt({ seq, template, enable_thinking, add_generation_prompt, preserve_thinking }, line) {
    const { parse } = await import("./prompt/json.mjs"); // JSON.parse would lose the order of some keys
    const { Refused, TEMPLATES, render } = await import("./prompt/render.mjs");
    if (!TEMPLATES.includes(template)) return { seq, skipped: `no template ${template}` };
    const asked = parse(line);
    const [messages, tools] = [asked.get("messages"), asked.get("tools")];
    try {
      const text = render({ messages, tools, template, enable_thinking, add_generation_prompt, preserve_thinking });
      return { seq, text };
    } catch (error) {
      if (error instanceof Refused) return { seq, refused: inOneLine(error) };
      throw error;
    }
  },
};

function answer(kind, plan, params, inputs, round, want) {
  if (Object.hasOwn(MODULES, kind)) return MODULES[kind](params, inputs, round);
  if (model === null) throw new Error(`no model is loaded for a case of kind ${kind}`);
  if (kind === "forward") return forwardCase(model, plan ?? { steps: null }, inputs, round, want);
  return (kind === "layer" ? layerCase : attentionCase)(model, params, inputs, round);
}

/** Floats as the profile stores them; ids as they are. */
function stored({ shape, data }, profile) {
  return tensor(shape, profile === "f32" && data instanceof Float64Array ? Float32Array.from(data) : data);
}

const inOneLine = (error) => String(error.message).replace(/\s+/g, " ");

/** The answer to one line; null when it is the last one. */
export async function reply(line) {
  let asked = null;
  try {
    asked = JSON.parse(line);
    if (asked.cmd === "stop") return null;
    if (!Object.hasOwn(COMMANDS, asked.cmd)) return { seq: asked.seq, skipped: `no command ${asked.cmd}` };
    return await COMMANDS[asked.cmd](asked, line);
  } catch (error) {
    if (error.code === "ERR_MODULE_NOT_FOUND") return { seq: asked?.seq, skipped: "no prompt builder here" };
    return { seq: asked?.seq, error: inOneLine(error) };
  }
}
