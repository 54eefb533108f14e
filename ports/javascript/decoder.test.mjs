// What the suite does not ask: node --test ports/javascript/decoder.test.mjs

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { attentionMask, softmax } from "./attention.mjs";
import { reply } from "./commands.mjs";
import { headDimOf, kvHeadsOf, parseConfig, ropeOf } from "./config.mjs";
import { erf } from "./erf.mjs";
import { read, write } from "./safetensors.mjs";
import { concatenate, ones, PROFILES, slice, swapMiddle, tensor } from "./tensor.mjs";

const CONFIG = {
  num_hidden_layers: 3,
  layer_types: ["sliding_attention", "sliding_attention", "full_attention"],
  head_dim: 8,
  num_key_value_heads: 2,
};

const counting = (shape) => tensor(shape, Float64Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => i));

function inFolder(use) {
  const folder = mkdtempSync(join(tmpdir(), "gemma4-js-"));
  try {
    return use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("tensors of every dtype come back from a file", () =>
  inFolder((folder) => {
    const tensors = {
      bytes: tensor([3], Uint8Array.of(1, 0, 255)), // three bytes ahead of eight would leave these misaligned
      ids: tensor([1, 2], Int32Array.of(-1, 262143)),
      wide: tensor([2], Float64Array.of(0.1, -Infinity)),
      single: tensor([], Float32Array.of(0.5)),
      none: tensor([0, 4], new Float64Array(0)),
    };
    write(join(folder, "x.safetensors"), tensors);
    const back = read(join(folder, "x.safetensors"));
    for (const [name, { shape, data }] of Object.entries(tensors)) {
      assert.deepEqual(back[name].shape, shape);
      assert.deepEqual([...back[name].data], [...data]);
    }
  }));

test("16-bit floats are read", () =>
  inFolder((folder) => {
    const header = JSON.stringify({
      half: { dtype: "F16", shape: [4], data_offsets: [0, 8] },
      brain: { dtype: "BF16", shape: [2], data_offsets: [8, 12] },
    });
    const bytes = Buffer.from(new Uint16Array([0x3c00, 0xc500, 0x0001, 0x7c00, 0x3f80, 0xc1a0]).buffer);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    writeFileSync(join(folder, "x.safetensors"), Buffer.concat([length, Buffer.from(header), bytes]));
    const { half, brain } = read(join(folder, "x.safetensors"));
    assert.deepEqual([...half.data], [1, -5, 2 ** -24, Infinity]);
    assert.deepEqual([...brain.data], [1, -20]);
  }));

test("slices put together are the whole, along every axis", () => {
  const x = counting([2, 3, 4]);
  for (const axis of [0, 1, 2]) {
    const parts = [slice(x, axis, 0, 1), slice(x, axis, 1, x.shape[axis])];
    assert.deepEqual(concatenate(parts, axis), x);
  }
});

test("heads are cut out of a row", () => {
  const y = swapMiddle(counting([1, 2, 3, 2])); // B L H E -> B H L E
  assert.deepEqual(y.shape, [1, 3, 2, 2]);
  assert.deepEqual([...y.data], [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
});

test("the window counts the query, pads and future keys are not seen", () => {
  const positions = tensor([1, 4], Int32Array.of(0, 0, 1, 2)); // a pad, then three tokens
  const valid = tensor([1, 4], Uint8Array.of(0, 1, 1, 1));
  const mask = attentionMask(positions, positions, valid, 2);
  assert.deepEqual([...mask.data], [0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1]);
});

test("a softmax that sees nothing is 0, and NaN stays NaN", () => {
  const scores = Float64Array.of(1, 2);
  softmax(scores, Uint8Array.of(0, 0), PROFILES.f64);
  assert.deepEqual([...scores], [0, 0]);
  const spoilt = Float64Array.of(1, NaN);
  softmax(spoilt, ones([2]).data, PROFILES.f64);
  assert.ok(spoilt.every(Number.isNaN));
});

test("either spelling of the full layers' shape is read", () => {
  const old = { global_head_dim: 16, num_global_key_value_heads: 1 };
  const late = { per_layer_config: { "02": { head_dim: 16, num_key_value_heads: 1 } } };
  for (const spelling of [old, late]) {
    const config = parseConfig({ text_config: { ...CONFIG, ...spelling, attention_k_eq_v: true } });
    assert.deepEqual([0, 1, 2].map((layer) => headDimOf(config, layer)), [8, 8, 16]);
    assert.deepEqual([0, 1, 2].map((layer) => kvHeadsOf(config, layer)), [2, 2, 1]);
  }
});

test("without rope_parameters full layers are proportional", () => {
  const config = parseConfig(CONFIG);
  assert.deepEqual(ropeOf(config, 0), { rope_theta: 1e4, rope_type: "default", partial_rotary_factor: 1 });
  assert.deepEqual(ropeOf(config, 2), { rope_theta: 1e6, rope_type: "proportional", partial_rotary_factor: 0.25 });
});

test("a configuration that no decoder runs is refused", () => {
  assert.throws(() => parseConfig({ ...CONFIG, num_hidden_layers: 4 }), /got 3 entries/);
  assert.throws(() => parseConfig({ ...CONFIG, layer_types: Array(3).fill("sliding_attention") }), /at the end/);
  assert.throws(() => parseConfig({ ...CONFIG, num_kv_shared_layers: 1 }), /layer 2: no earlier layer/);
});

test("the error function is right to its last digits", () => {
  assert.ok(Math.abs(erf(0.5) - 0.5204998778130465) < 1e-15);
  assert.ok(Math.abs(erf(-2) + 0.9953222650189527) < 1e-15);
  assert.equal(erf(7), 1);
});

test("every fault is one line with its seq", async () => {
  assert.match((await reply("no JSON")).error, /JSON/);
  assert.match((await reply("null")).error, /null/);
  assert.deepEqual(await reply('{"cmd":"tokenize","seq":3}'), { seq: 3, skipped: "no command tokenize" });
  assert.match((await reply('{"cmd":"load","model_dir":"/nowhere"}')).error, /nowhere/);
  const run = { cmd: "run", seq: 4, kind: "forward", profile: "f32", params: {}, inputs: null, want: [], out: "" };
  assert.match((await reply(JSON.stringify(run))).error, /no model is loaded/);
  assert.match((await reply(JSON.stringify({ ...run, profile: "bf16" }))).skipped, /bf16/);
  assert.equal(await reply('{"cmd":"stop"}'), null);
});
