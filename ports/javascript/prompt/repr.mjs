// Values as Python prints them. Prompts have them so: a schema's type that is a list, a description that is null, and
// the system message in parts of the templates before 2026-04-28.

import { floatText, PyNumber } from "./numbers.mjs";

const LONGEST_SHOWN = 120;
const ESCAPES = new Map([["\\", "\\\\"], ["\n", "\\n"], ["\r", "\\r"], ["\t", "\\t"]]);
const UNPRINTABLE = /[\p{C}\p{Z}]/u; // what str.isprintable() denies, all but the space

/** What Python's str() gives: a string as it is, anything else as repr() has it. */
export function str(value) {
  return typeof value === "string" ? value : repr(value);
}

/** What Python's repr() gives for a JSON value. */
export function repr(value) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return quoted(value);
  if (value instanceof PyNumber) return value.text;
  if (Array.isArray(value)) return `[${value.map(repr).join(", ")}]`;
  if (value instanceof Map) return `{${[...value].map(([key, item]) => `${repr(key)}: ${repr(item)}`).join(", ")}}`;
  return foreign(value);
}

/** repr(value) cut to a length that fits one line of an error. */
export function shown(value) {
  let text;
  try {
    text = repr(value);
  } catch { // nested without end, or somebody's class
    text = "a value that cannot be printed";
  }
  const characters = [...text.slice(0, 2 * LONGEST_SHOWN + 2)];
  return characters.length <= LONGEST_SHOWN ? text : `${characters.slice(0, LONGEST_SHOWN - 3).join("")}...`;
}

/** Single quotes, unless the string holds a single quote and no double one. */
function quoted(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let body = "";
  for (const character of text) {
    if (character === quote) body += `\\${character}`;
    else if (ESCAPES.has(character)) body += ESCAPES.get(character);
    else if (character !== " " && UNPRINTABLE.test(character)) body += escaped(character.codePointAt(0));
    else body += character;
  }
  return quote + body + quote;
}

function escaped(point) {
  const hex = point.toString(16);
  if (point <= 0xff) return `\\x${hex.padStart(2, "0")}`;
  return point <= 0xffff ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
}

/** What is no plain value stands in errors alone: numbers, objects and classes of JavaScript. */
function foreign(value) {
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : floatText(value);
  if (typeof value === "object") return repr(new Map(Object.entries(value)));
  return typeof value === "bigint" ? value.toString() : `a ${typeof value}`;
}
