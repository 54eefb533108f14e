// Weights by rule, int8-splitmix64-v1 (docs/FIXTURES.md): every parameter is a formula.
//
// A 64-bit word is [high, low], both unsigned 32-bit: ten times as fast as BigInt.

const bfloat16 = (value) => {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  bits[0] += 0x7fff + ((bits[0] >>> 16) & 1); // to the nearest, ties to even
  bits[0] &= 0xffff0000;
  return new Float32Array(bits.buffer)[0];
};

const add = ([ah, al], [bh, bl]) => {
  const low = al + bl;
  return [(ah + bh + (low > 0xffffffff ? 1 : 0)) >>> 0, low >>> 0];
};

/** a * b of 32 bits each, as 64. */
function wide(a, b) {
  const [al, ah, bl, bh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const [low, first, second] = [al * bl, al * bh, ah * bl];
  const middle = (low >>> 16) + (first & 0xffff) + (second & 0xffff);
  const high = ah * bh + (first >>> 16) + (second >>> 16) + (middle >>> 16);
  return [high >>> 0, ((middle << 16) | (low & 0xffff)) >>> 0];
}

function multiply([ah, al], [bh, bl]) {
  const [high, low] = wide(al, bl);
  return [(high + Math.imul(ah, bl) + Math.imul(al, bh)) >>> 0, low];
}

const xorShift = ([high, low], n) => [(high ^ (high >>> n)) >>> 0, (low ^ ((low >>> n) | (high << (32 - n)))) >>> 0];

function fnv1a64(text) {
  let [high, low] = [0xcbf29ce4, 0x84222325];
  for (const byte of new TextEncoder().encode(text)) {
    [high, low] = multiply([high, (low ^ byte) >>> 0], [0x100, 0x1b3]);
  }
  return [high, low];
}

function splitmix64(state) {
  let z = add(state, [0x9e3779b9, 0x7f4a7c15]);
  z = multiply(xorShift(z, 30), [0xbf58476d, 0x1ce4e5b9]);
  z = multiply(xorShift(z, 27), [0x94d049bb, 0x133111eb]);
  return xorShift(z, 31);
}

/** The signed top byte of the hash of elements first ... first + count - 1. */
export function q(name, first, count) {
  const hash = fnv1a64(name);
  return Int32Array.from({ length: count }, (_, n) => {
    const index = first + n; // up to 2^53: never in 32 bits
    return splitmix64(add(hash, [Math.floor(index / 2 ** 32), index >>> 0]))[0] >> 24;
  });
}

/** Formula -> values of q and what else it needs -> weights. */
const FORMULAS = {
  matrix: (hashed, { fan_in }) => hashed.map((n) => n * 2 ** -Math.round(Math.log2(73.9 * Math.sqrt(fan_in)))),

  norm: (hashed, { base }) => hashed.map((n) => bfloat16((1 + n / 256) * bfloat16(base))),

  "signed-norm"(hashed, { name, first, base }) {
    const signs = q(`${name}#sign`, first, hashed.length);
    return FORMULAS.norm(hashed, { base }).map((weight, i) => (signs[i] < 0 ? -weight : weight));
  },

  "per-expert-scale": (hashed) => hashed.map((n) => bfloat16(2 ** (n / 80))),
};

/** Weights first ... first + q.length - 1 of a parameter. */
export const weightsOf = (hashed, { formula, ...parameters }) => FORMULAS[formula](Float64Array.from(hashed), parameters);
