// Tool declarations: a JSON Schema as the format writes it.

import { Commas } from "./output.mjs";
import { field, inside, truthy } from "./plain.mjs";
import { bad } from "./refused.mjs";
import { shown, str } from "./repr.mjs";
import { LAUNCH, SYSTEM_PARTS } from "./template.mjs";
import { sortedItems, writeString, writeValue } from "./values.mjs";

const SCHEMA_KEYS = ["description", "type", "properties", "required", "nullable"];

/** Writes tools for one template. */
export class Declarations {
  #out;
  #launch;
  #keepsReservedNames;
  #null;

  constructor(out, template) {
    this.#out = out;
    this.#launch = template.revision === LAUNCH;
    this.#keepsReservedNames = template.since(SYSTEM_PARTS);
    this.#null = template.null;
  }

  /**
   * Write `declaration:NAME{description:...,parameters:{...},response:{...}}`.
   *
   * Parameters without `type` lack their closing brace, as the templates leave them.
   */
  write(tool, at) {
    const out = this.#out;
    const where = `${at}.function`;
    const declared = field(tool, "function");
    if (!(declared instanceof Map)) throw bad(where, got(declared), "an object with name and parameters");
    const name = declared.get("name");
    if (typeof name !== "string") throw bad(`${where}.name`, got(name), "a string");
    out.write("declaration:", name, "{description:");
    writeString(out, printed(declared.get("description")));
    const parameters = declared.get("parameters");
    if (truthy(parameters)) this.#writeParameters(parameters, `${where}.parameters`);
    if (declared.has("response")) this.#writeResponse(declared.get("response"));
    out.write("}");
  }

  #writeParameters(parameters, where) {
    const out = this.#out;
    const [properties, required, kind] = ["properties", "required", "type"].map((key) => field(parameters, key));
    out.write(",parameters:{");
    if (truthy(properties)) {
      out.write("properties:{");
      this.#writeProperties(properties, `${where}.properties`);
      out.write("},");
    }
    if (truthy(required)) {
      this.#writeRequired(required, `${where}.required`);
      out.write(",");
    }
    if (truthy(kind)) {
      this.#writeType(kind);
      out.write("}");
    }
  }

  #writeResponse(response) {
    const out = this.#out;
    const description = field(response, "description");
    out.write(",response:{");
    if (truthy(description)) {
      out.write("description:");
      writeString(out, printed(description));
      out.write(",");
    }
    const kind = field(response, "type");
    if (printed(kind).toUpperCase() === "OBJECT") {
      this.#writeType(kind);
      out.write("}");
    }
  }

  /**
   * Write `name:{...}` of every property.
   *
   * An object without `properties` is written as if its own keys were some, all but the keys of JSON Schema. Before
   * 2026-04-28 these are left out everywhere, even where a parameter bears the name.
   */
  #writeProperties(properties, where, ofAnObjectWithout = false) {
    if (!(properties instanceof Map)) throw bad(where, shown(properties), "an object");
    const hidden = ofAnObjectWithout || !this.#keepsReservedNames ? SCHEMA_KEYS : [];
    const commas = new Commas(this.#out);
    for (const [name, schema] of sortedItems(properties)) {
      if (hidden.includes(name)) continue;
      commas.next();
      this.#out.write(name, ":{");
      this.#writeSchema(schema, inside(where, name));
      this.#out.write("}");
    }
  }

  /** Write the fields of one property: description, then those of its type, then the type. */
  #writeSchema(schema, where) {
    const out = this.#out;
    const commas = new Commas(out);
    const [description, choices, items] = ["description", "enum", "items"].map((key) => field(schema, key));
    const kind = printed(field(schema, "type")).toUpperCase();
    const writeNullable = () => {
      if (!truthy(field(schema, "nullable"))) return;
      commas.next();
      out.write("nullable:true");
    };
    if (truthy(description)) {
      commas.next();
      out.write("description:");
      writeString(out, printed(description));
    }
    if (this.#launch) writeNullable();
    if (kind === "STRING" && truthy(choices)) {
      commas.next();
      out.write("enum:");
      writeValue(out, choices, this.#null, true);
    } else if (kind === "ARRAY" && items instanceof Map && items.size > 0) {
      this.#beginPart(commas);
      out.write("items:{");
      this.#writeItems(items, `${where}.items`);
      out.write("}");
    }
    if (!this.#launch) writeNullable();
    if (kind === "OBJECT") this.#writeObject(schema, commas, where);
    commas.next();
    this.#writeType(field(schema, "type"));
  }

  #writeObject(schema, commas, where) {
    const properties = field(schema, "properties");
    const required = field(schema, "required");
    const own = properties instanceof Map;
    this.#beginPart(commas);
    this.#out.write("properties:{");
    this.#writeProperties(own ? properties : schema, `${where}.properties`, !own);
    this.#out.write("}");
    if (truthy(required)) {
      this.#beginPart(commas);
      this.#writeRequired(required, `${where}.required`);
    }
  }

  /** Begin `items`, `properties` or `required`; at launch after a comma, whatever came before or comes next. */
  #beginPart(commas) {
    if (this.#launch) this.#out.write(",");
    else commas.next();
  }

  /** Write the schema of an array's items, every key in order. */
  #writeItems(items, where) {
    const out = this.#out;
    const commas = new Commas(out);
    for (const [key, value] of sortedItems(items)) {
      if (value === null) continue;
      const at = inside(where, key);
      commas.next();
      if (key === "properties") {
        out.write("properties:{");
        if (value instanceof Map) this.#writeProperties(value, at);
        out.write("}");
      } else if (key === "required") {
        this.#writeRequired(value, at);
      } else if (key === "type") {
        const upper = (kind) => printed(kind).toUpperCase();
        out.write("type:");
        writeValue(out, typeof value === "string" ? upper(value) : members(value, at).map(upper), this.#null, true);
      } else {
        out.write(key, ":");
        writeValue(out, value, this.#null, true);
      }
    }
  }

  #writeType(kind) {
    this.#out.write("type:");
    writeString(this.#out, printed(kind).toUpperCase());
  }

  #writeRequired(names, where) {
    const commas = new Commas(this.#out);
    this.#out.write("required:[");
    for (const name of members(names, where)) {
      commas.next();
      writeString(this.#out, printed(name));
    }
    this.#out.write("]");
  }
}

/** A value printed outside any quotes: "" where there is none, else as Python prints it. */
function printed(value) {
  return value === undefined ? "" : str(value);
}

function got(value) {
  return value === undefined ? "none" : shown(value);
}

/** What a list holds; of a string its characters and of an object its keys, as the templates take them. */
function members(value, where) {
  if (Array.isArray(value)) return value;
  if (typeof value === "string") return [...value]; // by code points: split("") would halve an emoji
  if (value instanceof Map) return [...value.keys()];
  throw bad(where, shown(value), "a list");
}
