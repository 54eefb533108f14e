// A small JSON reader that keeps what JSON.parse loses: the order of keys that look like integers ("1" comes before
// "a" in every JavaScript object), the ".0" of whole floats and the digits of ints beyond 2^53. Objects become Maps,
// numbers PyNumbers. Newer engines hand a reviver the source of a number, which mends the numbers but not the order.

import { PyNumber } from "./numbers.mjs";

export { PyNumber };

const DEEPEST = 1000; // before the engine's stack ends; render() refuses values far flatter than this
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WORD = /true|false|null/y;
const WORDS = new Map([["true", true], ["false", false], ["null", null]]);

/** The value of a JSON text; a SyntaxError, as of JSON.parse, for what is none. NaN and Infinity are none. */
export function parse(text) {
  const reader = new Reader(text);
  const value = reader.value(0);
  reader.end();
  return value;
}

class Reader {
  #text;
  #at = 0;

  constructor(text) {
    this.#text = text;
  }

  value(depth) {
    if (depth > DEEPEST) throw this.#error(`values nested deeper than ${DEEPEST}`);
    this.#match(SPACE);
    const next = this.#text[this.#at];
    if (next === "{") return this.#object(depth);
    if (next === "[") return this.#array(depth);
    if (next === '"') return this.#string();
    const number = this.#match(NUMBER);
    if (number) return PyNumber.ofLiteral(number);
    const word = this.#match(WORD);
    if (word) return WORDS.get(word);
    throw this.#error("no JSON value");
  }

  end() {
    this.#match(SPACE);
    if (this.#at < this.#text.length) throw this.#error("text after the value");
  }

  /** Of a key that comes twice the last value stands at the first place: so for Python's dict, so for a Map. */
  #object(depth) {
    const found = new Map();
    this.#at += 1;
    if (this.#skip("}")) return found;
    do {
      this.#match(SPACE);
      if (this.#text[this.#at] !== '"') throw this.#error("no key");
      const key = this.#string();
      this.#expect(":");
      found.set(key, this.value(depth + 1));
    } while (this.#skip(","));
    this.#expect("}");
    return found;
  }

  #array(depth) {
    const found = [];
    this.#at += 1;
    if (this.#skip("]")) return found;
    do found.push(this.value(depth + 1));
    while (this.#skip(","));
    this.#expect("]");
    return found;
  }

  /** Finds the end by hand, and leaves the escapes to JSON.parse, which is right about strings. */
  #string() {
    const start = this.#at;
    let at = start + 1;
    while (this.#text[at] !== '"') {
      if (at >= this.#text.length) throw this.#error("a string without end");
      at += this.#text[at] === "\\" ? 2 : 1;
    }
    this.#at = at + 1;
    return JSON.parse(this.#text.slice(start, this.#at));
  }

  #skip(sign) {
    this.#match(SPACE);
    if (this.#text[this.#at] !== sign) return false;
    this.#at += 1;
    return true;
  }

  #expect(sign) {
    if (!this.#skip(sign)) throw this.#error(`no ${sign}`);
  }

  #match(pattern) {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0] ?? "";
    this.#at += found.length;
    return found;
  }

  #error(what) {
    return new SyntaxError(`JSON: ${what} at character ${this.#at}`);
  }
}
