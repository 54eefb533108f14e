// JSON values as the format writes them: strings between `<|"|>`, keys sorted without regard to case.

import { PyNumber } from "./numbers.mjs";
import { Commas } from "./output.mjs";
import { byCodePoints } from "./text.mjs";

const QUOTE = '<|"|>';

/** `nothing` is what null is written as. Keys stand between quotes in schemas alone. */
export function writeValue(out, value, nothing, quoteKeys) {
  if (value === null) out.write(nothing);
  else if (typeof value === "string") writeString(out, value);
  else if (typeof value === "boolean") out.write(String(value));
  else if (value instanceof PyNumber) out.write(value.text);
  else if (Array.isArray(value)) writeList(out, value, nothing, quoteKeys);
  else {
    out.write("{");
    writeFields(out, value, nothing, quoteKeys);
    out.write("}");
  }
}

/** The fields of an object without its braces. */
export function writeFields(out, fields, nothing, quoteKeys) {
  const commas = new Commas(out);
  for (const [key, item] of sortedItems(fields)) {
    commas.next();
    if (quoteKeys) writeString(out, key);
    else out.write(key);
    out.write(":");
    writeValue(out, item, nothing, quoteKeys);
  }
}

function writeList(out, items, nothing, quoteKeys) {
  const commas = new Commas(out);
  out.write("[");
  for (const item of items) {
    commas.next();
    writeValue(out, item, nothing, quoteKeys);
  }
  out.write("]");
}

export function writeString(out, text) {
  out.write(QUOTE, text, QUOTE);
}

/** The items in the order of their keys in lower case; equal ones keep the order that they came in. */
export function sortedItems(fields) {
  const keyed = [...fields].map((item) => ({ item, lower: item[0].toLowerCase() }));
  return keyed.sort((one, other) => byCodePoints(one.lower, other.lower)).map(({ item }) => item);
}
