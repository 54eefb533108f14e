// Tool calls and what the tools answered.

import { mediaToken, textOf } from "./content.mjs";
import { PyNumber } from "./numbers.mjs";
import { field, truthy } from "./plain.mjs";
import { bad } from "./refused.mjs";
import { repr, shown } from "./repr.mjs";
import { TOOL_MEDIA, TURN_CLOSING } from "./template.mjs";
import { writeFields } from "./values.mjs";

/** Writes calls and responses for one template. */
export class Calls {
  #out;
  #template;
  #current;

  constructor(out, template) {
    this.#out = out;
    this.#template = template;
    this.#current = template.since(TURN_CLOSING);
  }

  /**
   * Write `<|tool_call>call:NAME{key:value,...}<tool_call|>`.
   *
   * Arguments that are a JSON string went in as they were before 2026-07-09; since then they are refused.
   */
  writeCall(call, at) {
    const out = this.#out;
    const where = `${at}.function`;
    const called = field(call, "function");
    const passed = field(called, "arguments");
    out.write("<|tool_call>call:", nameIn(field(called, "name"), where), "{");
    if (passed instanceof Map) {
      writeFields(out, passed, this.#template.null, false);
    } else if (this.#current && passed !== null) {
      const got = passed === undefined ? "none" : shown(passed);
      throw bad(`${where}.arguments`, got, "an object (or null): parse a JSON string first");
    } else if (typeof passed === "string") {
      out.write(passed);
    }
    out.write("}<tool_call|>");
  }

  /** Write an entry of `tool_responses`, the style of Gemma's own documentation: name and response. */
  writeNative(response, where) {
    const name = field(response, "name");
    const body = field(response, "response");
    const nameless = name === undefined || (this.#current && !truthy(name));
    this.#writeResponse(nameIn(nameless ? "unknown" : name, where), body === undefined ? [] : body);
  }

  /** Write a message of role tool; `called` has the name of the call that has its `tool_call_id`. */
  writeToolMessage(message, called, at) {
    const key = keyOf(message.get("tool_call_id"));
    const own = message.get("name");
    const fallback = this.#current && !truthy(own) ? "unknown" : own;
    const name = nameIn(called.has(key) ? called.get(key) : fallback, at);
    const where = `${at}.content`;
    const body = message.get("content") ?? null;
    if (body instanceof Map) throw bad(where, shown(body), "a string or a list of parts: write an object as JSON");
    if (!Array.isArray(body)) {
      this.#writeResponse(name, body);
      return;
    }
    const { text, media } = this.#partsOf(body, where);
    this.#writeResponse(name, text);
    for (const token of media) this.#out.write(token);
  }

  #partsOf(parts, where) {
    const media = [];
    let text = "";
    parts.forEach((part, index) => {
      const at = `${where}[${index}]`;
      const said = textOf(part, at);
      if (said !== null) {
        text += said;
      } else if (!this.#template.since(TOOL_MEDIA)) {
        throw bad(at, shown(part), `text alone: ${this.#template.name} drops other parts of a tool's answer`);
      } else {
        media.push(mediaToken(part, this.#template, at));
      }
    });
    return { text, media };
  }

  /** `<|tool_response>response:NAME{key:value,...}<tool_response|>`; what is no object stands at `value`. */
  #writeResponse(name, body) {
    this.#out.write("<|tool_response>response:", name, "{");
    writeFields(this.#out, body instanceof Map ? body : new Map([["value", body]]), this.#template.null, false);
    this.#out.write("}<tool_response|>");
  }
}

/** The names of the calls by the keys of their ids: of equal ids, and of calls that have none, the last. */
export function namesById(calls) {
  return new Map(calls.map((call) => [keyOf(field(call, "id")), field(field(call, "function"), "name")]));
}

/** The same string for ids that Python calls equal: 1, 1.0 and true are, 1 and "1" are not, and no id is null. */
function keyOf(id) {
  if (id === undefined || id === null) return "none";
  if (id instanceof PyNumber) return `number ${id.key}`;
  if (typeof id === "boolean") return `number ${Number(id)}`;
  return `text ${typeof id === "string" ? id : repr(id)}`;
}

function nameIn(name, where) {
  if (typeof name === "string") return name;
  throw bad(`${where}.name`, name === undefined || name === null ? "none" : shown(name), "a string");
}
