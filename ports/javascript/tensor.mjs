// Tensors: { shape, data }, row-major. Floats lie in a Float64Array, ids and positions in an Int32Array, masks in a
// Uint8Array.
//
// `round` is the arithmetic: every operation passes each number of its output through it. A sum of products is kept in
// float64 and rounded once, at its end.

export const PROFILES = { f64: (x) => x, f32: Math.fround };

export const sizeOf = (shape) => shape.reduce((product, n) => product * n, 1);

export const tensor = (shape, data) => ({ shape, data });

export const zeros = (shape) => tensor(shape, new Float64Array(sizeOf(shape)));

export const ones = (shape) => tensor(shape, new Uint8Array(sizeOf(shape)).fill(1));

/** The same numbers in another shape. */
export const reshape = (x, shape) => tensor(shape, x.data);

/** f of every number of x. */
export const map = (x, f, round) => tensor(x.shape, x.data.map((value) => round(f(value))));

export const scale = (x, factor, round) => map(x, (value) => value * factor, round);

/** x + y of equal shapes. */
export const add = (x, y, round) => tensor(x.shape, x.data.map((value, i) => round(value + y.data[i])));

/** x * y of equal shapes. */
export const multiply = (x, y, round) => tensor(x.shape, x.data.map((value, i) => round(value * y.data[i])));

/** x W^T: x [..., I], weight [O, I] -> [..., O]. */
export function linear(x, weight, round) {
  const [outputs, inputs] = weight.shape;
  const rows = x.data.length / inputs;
  const y = zeros([...x.shape.slice(0, -1), outputs]); // [..., O]
  for (let row = 0; row < rows; row++) {
    for (let o = 0; o < outputs; o++) {
      let sum = 0;
      for (let i = 0; i < inputs; i++) sum += x.data[row * inputs + i] * weight.data[o * inputs + i];
      y.data[row * outputs + o] = round(sum);
    }
  }
  return y;
}

/** Rows of a table: ids [B, L], table [V, D] -> [B, L, D]. */
export function rowsOf(table, ids) {
  const width = table.shape[1];
  const y = zeros([...ids.shape, width]); // [B, L, D]
  ids.data.forEach((id, i) => y.data.set(table.data.subarray(id * width, (id + 1) * width), i * width));
  return y;
}

/** Entry `index` of the first axis, as a view: [X, ...] -> [...]. */
export function entry(x, index) {
  const shape = x.shape.slice(1);
  const size = sizeOf(shape);
  return tensor(shape, x.data.subarray(index * size, (index + 1) * size));
}

/** Entries start to stop of an axis. */
export function slice(x, axis, start, stop) {
  const shape = x.shape.with(axis, stop - start);
  const inner = sizeOf(x.shape.slice(axis + 1));
  const [block, taken] = [x.shape[axis] * inner, (stop - start) * inner];
  const y = tensor(shape, new x.data.constructor(sizeOf(shape)));
  for (let from = start * inner, to = 0; to < y.data.length; from += block, to += taken) {
    y.data.set(x.data.subarray(from, from + taken), to);
  }
  return y;
}

/** Tensors one after the other along an axis. */
export function concatenate(parts, axis) {
  const total = parts.reduce((sum, part) => sum + part.shape[axis], 0);
  const shape = parts[0].shape.with(axis, total);
  const inner = sizeOf(shape.slice(axis + 1));
  const y = tensor(shape, new parts[0].data.constructor(sizeOf(shape)));
  let start = 0;
  for (const part of parts) {
    const taken = part.shape[axis] * inner;
    for (let from = 0, to = start; from < part.data.length; from += taken, to += total * inner) {
      y.data.set(part.data.subarray(from, from + taken), to);
    }
    start += taken;
  }
  return y;
}

/** The two middle axes exchanged: [B, L, H, E] -> [B, H, L, E]. */
export function swapMiddle(x) {
  const [batch, first, second, width] = x.shape;
  const y = zeros([batch, second, first, width]);
  for (let b = 0; b < batch; b++) {
    for (let i = 0; i < first; i++) {
      for (let j = 0; j < second; j++) {
        const from = ((b * first + i) * second + j) * width;
        y.data.set(x.data.subarray(from, from + width), ((b * second + j) * first + i) * width);
      }
    }
  }
  return y;
}
