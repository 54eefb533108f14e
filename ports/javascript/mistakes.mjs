// Known mistakes that can be planted, to see that the suite finds them: `node adapter.mjs --mistake NAME`. Each is one
// line in the module concerned. The names are those of `gemma4-conformance bugs`.

export const MISTAKES = [
  "prop-rope-denominator",
  "gelu-erf",
  "embed-scale-missing",
  "ple-combine-scale-missing",
  "sliding-window-one-more",
  "donor-first-of-type",
  "router-not-renormalised",
  "softcap-missing",
  "v-norm-missing",
  "layer-scalar-dropped",
];

let planted = null;

/** Plants one mistake, for as long as the process lives. */
export function plant(name) {
  if (!MISTAKES.includes(name)) throw new Error(`--mistake: got ${name}, expected one of ${MISTAKES.join(", ")}`);
  planted = name;
}

export const mistaken = (name) => planted === name;
