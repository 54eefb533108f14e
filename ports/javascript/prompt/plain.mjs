// What a caller passed, as plain values: strings, PyNumbers, booleans, null, arrays and Maps of exactly these.
//
// parse() of json.mjs gives such values. What JSON.parse gives is taken too, but it cannot be mended: keys that look
// like integers have moved to the front, and a whole number is written as an int even where the text had `2.0`.

import { floatText, PyNumber } from "./numbers.mjs";
import { bad } from "./refused.mjs";
import { shown } from "./repr.mjs";

const DEEPEST = 104; // an argument of a call may nest 100 levels
const MOST_DIGITS = 4300; // Python prints no int of more
const ROLES = ["system", "developer", "user", "assistant", "model", "tool"];
const READ = ["reasoning", "reasoning_content", "tool_calls", "tool_responses", "tool_call_id", "name"];
const READ_OF_PART = ["type", "text"]; // a part may also hold a picture, which is nobody's JSON

/** The messages with what the format reads of them; keys whose value is null are left out. */
export function plainMessages(messages) {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw bad("messages", shown(messages), "a list of at least one message");
  }
  return messages.map((message, index) => plainMessage(message, `messages[${index}]`));
}

export function plainTools(tools) {
  if (tools === null || tools === undefined) return [];
  if (!Array.isArray(tools)) throw bad("tools", shown(tools), "a list");
  return tools.map((tool, index) => plainValue(tool, `tools[${index}]`));
}

/** The place of a key's value. */
export function inside(where, key) {
  return /^[A-Za-z_][A-Za-z0-9_]{0,39}$/.test(key) ? `${where}.${key}` : `${where}[${shown(key)}]`;
}

/** `value[key]`, or undefined where there is none: what is no object has no fields. null is a value. */
export function field(value, key) {
  return value instanceof Map ? value.get(key) : undefined;
}

/** Whether Python calls a plain value true. An empty list and an empty object are false, unlike in JavaScript. */
export function truthy(value) {
  if (value instanceof PyNumber) return !value.isZero;
  if (value instanceof Map) return value.size > 0;
  return Array.isArray(value) ? value.length > 0 : Boolean(value);
}

function plainMessage(message, where) {
  const fields = entriesOf(message);
  if (fields === null) throw bad(where, shown(message), "an object with role and content");
  const given = new Map(fields.filter(([, value]) => value !== null));
  const role = given.get("role");
  if (!ROLES.includes(role)) throw bad(`${where}.role`, shown(role), `one of ${ROLES.join(", ")}`);
  const plain = new Map([["role", role]]);
  for (const key of READ) {
    if (given.has(key)) plain.set(key, plainValue(given.get(key), `${where}.${key}`));
  }
  if (given.has("content")) plain.set("content", plainContent(given.get("content"), `${where}.content`));
  return plain;
}

function plainContent(content, where) {
  if (!Array.isArray(content)) return plainValue(content, where);
  return content.map((part, index) => plainPart(part, `${where}[${index}]`));
}

function plainPart(part, where) {
  const fields = entriesOf(part);
  if (fields === null) return plainValue(part, where);
  const read = fields.filter(([key]) => READ_OF_PART.includes(key));
  return new Map(read.map(([key, value]) => [key, plainValue(value, `${where}.${key}`)]));
}

function plainValue(value, where, depth = 0) {
  if (typeof value === "string") return utf8(value, where);
  if (value === null || typeof value === "boolean") return value;
  const number = numberOf(value, where);
  if (number !== null) return number;
  const fields = entriesOf(value);
  if (depth > DEEPEST && (fields !== null || Array.isArray(value))) {
    throw bad(where, `values nested deeper than ${DEEPEST}`, "flatter ones");
  }
  if (Array.isArray(value)) return value.map((item, index) => plainValue(item, `${where}[${index}]`, depth + 1));
  if (fields === null) throw bad(where, shown(value), "a JSON value");
  return new Map(fields.map(([key, item]) => [plainKey(key, where), plainValue(item, inside(where, key), depth + 1)]));
}

function plainKey(key, where) {
  if (typeof key !== "string") throw bad(where, `the key ${shown(key)}`, "keys that are strings");
  return utf8(key, where);
}

/** A number as a PyNumber, null for what is none. */
function numberOf(value, where) {
  let number = null;
  if (value instanceof PyNumber) number = value;
  else if (typeof value === "bigint") number = new PyNumber(value.toString(), false);
  else if (Number.isSafeInteger(value)) number = PyNumber.ofLiteral(String(value));
  else if (Number.isInteger(value)) throw bad(where, `${value}, which lost its digits`, "parse() of json.mjs");
  else if (typeof value === "number") number = new PyNumber(floatText(value), true);
  if (number === null) return null;
  if (!number.isFinite) throw bad(where, number.text, "a JSON value");
  if (!number.isFloat && number.text.replace("-", "").length > MOST_DIGITS) {
    throw bad(where, "an int of thousands of digits", "a shorter one");
  }
  return number;
}

/** What an object holds, without undefined as JSON.stringify has it; null for what is no object. */
function entriesOf(value) {
  if (value instanceof Map) return [...value];
  if (typeof value !== "object" || value === null) return null;
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return null;
  return Object.entries(value).filter(([, item]) => item !== undefined);
}

/** JavaScript strings may hold half a surrogate pair, which no UTF-8 can: encoders would write U+FFFD in its place. */
function utf8(text, where) {
  if (text.isWellFormed()) return text;
  const at = text.search(/\p{Cs}/u);
  const around = text.slice(Math.max(0, at - 20), at + 20);
  throw bad(where, `the lone surrogate ${shown(text[at])} in ${shown(around)}`, "text that UTF-8 can hold");
}
