// RMSNorm: x / sqrt(mean(x^2) + eps) * w. The weight is w, not 1 + w.

import { zeros } from "./tensor.mjs";

/** Normalises the last axis of x [..., D]; the weight [D] may be absent. */
export function rmsNorm(x, weight, eps, round) {
  const width = x.shape.at(-1);
  const y = zeros(x.shape);
  for (let start = 0; start < x.data.length; start += width) {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += x.data[start + i] ** 2;
    const root = Math.sqrt(sum / width + eps);
    for (let i = 0; i < width; i++) {
      const normed = x.data[start + i] / root;
      y.data[start + i] = round(weight ? normed * weight.data[i] : normed);
    }
  }
  return y;
}
