// Safetensors files: eight bytes with the header's length, the header in JSON, the tensors' bytes. Little-endian, as
// every machine is that runs Node.

import { readFileSync, writeFileSync } from "node:fs";

import { tensor } from "./tensor.mjs";

const DECODERS = {
  F64: (bytes) => new Float64Array(bytes),
  F32: (bytes) => Float64Array.from(new Float32Array(bytes)),
  BF16: (bytes) => Float64Array.from(fromBfloat16(new Uint16Array(bytes))),
  F16: (bytes) => Float64Array.from(new Uint16Array(bytes), fromFloat16),
  I64: (bytes) => Int32Array.from(new BigInt64Array(bytes), Number),
  I32: (bytes) => new Int32Array(bytes),
  U8: (bytes) => new Uint8Array(bytes),
};

const NAMES = new Map([[Float64Array, "F64"], [Float32Array, "F32"], [Int32Array, "I32"], [Uint8Array, "U8"]]);

/** The tensors of a file, none of them decoded yet: a map of name -> function that gives the tensor. */
export function open(path) {
  const file = readFileSync(path);
  if (file.length < 8) throw new Error(`${path}: got ${file.length} bytes, expected a safetensors file`);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, start));
  delete header.__metadata__;
  return new Map(Object.entries(header).map(([name, entry]) => [name, () => decode(file, start, name, entry)]));
}

/** The tensors of a file: an object of name -> tensor. */
export function read(path) {
  return Object.fromEntries([...open(path)].map(([name, load]) => [name, load()]));
}

function decode(file, start, name, { dtype, shape, data_offsets: [from, to] }) {
  if (!(dtype in DECODERS)) throw new Error(`${name}: got dtype ${dtype}, expected ${Object.keys(DECODERS)}`);
  const at = file.byteOffset + start;
  return tensor(shape, DECODERS[dtype](file.buffer.slice(at + from, at + to))); // a copy, aligned
}

/** A bfloat16 is the upper half of a float32. */
function fromBfloat16(halves) {
  return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer);
}

function fromFloat16(bits) {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : (sign * 2 ** -14 * fraction) / 1024;
}

/** Writes name -> tensor; the array's class is the dtype. Wide ones come first, so that all are aligned. */
export function write(path, tensors) {
  const entries = Object.entries(tensors);
  entries.sort(([, a], [, b]) => b.data.BYTES_PER_ELEMENT - a.data.BYTES_PER_ELEMENT);
  const header = {};
  let end = 0;
  for (const [name, { shape, data }] of entries) {
    header[name] = { dtype: NAMES.get(data.constructor), shape, data_offsets: [end, (end += data.byteLength)] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.alloc(Math.ceil(json.length / 8) * 8, " ");
  json.copy(padded);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const parts = entries.map(([, { data }]) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  writeFileSync(path, Buffer.concat([length, padded, ...parts]));
}
