// Which of the ten published chat templates a prompt is built for.

import { problem } from "./refused.mjs";
import { shown } from "./repr.mjs";

export const LAUNCH = "2026-04-02";
export const TOOL_TURNS = "2026-04-10";
export const SYSTEM_PARTS = "2026-04-28";
export const TOOL_MEDIA = "2026-05-22";
export const TURN_CLOSING = "2026-07-09";

// `small` is E2B and E4B, `large` is 12B, 26B-A4B and 31B. The last revision is the current one.
const REVISIONS = new Map([
  ["small", [LAUNCH, TOOL_TURNS, SYSTEM_PARTS, TOOL_MEDIA, TURN_CLOSING]],
  ["large", [LAUNCH, TOOL_TURNS, SYSTEM_PARTS, "2026-06-03", TURN_CLOSING]],
]);

export const TEMPLATES = [...REVISIONS].flatMap(([size, dates]) => dates.map((date) => `${size}@${date}`));

export class Template {
  constructor(size, revision) {
    this.size = size;
    this.revision = revision;
  }

  /** The template called `small@2026-07-09`, or the current one of `small`. */
  static parse(name) {
    const current = REVISIONS.get(name)?.at(-1);
    if (current !== undefined) return new Template(name, current);
    if (!TEMPLATES.includes(name)) {
      throw problem("template", shown(name), `one of ${TEMPLATES.join(", ")}`, "name one of them");
    }
    return new Template(...name.split("@"));
  }

  get name() {
    return `${this.size}@${this.revision}`;
  }

  /** Whether this template has what came with a revision. ISO dates compare as strings. */
  since(revision) {
    return this.revision >= revision;
  }

  /** What None is written as. */
  get null() {
    return this.since(TURN_CLOSING) ? "null" : "None";
  }
}
