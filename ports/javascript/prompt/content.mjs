// What a message says: a string, or parts of text, images, audio and video.

import { bad } from "./refused.mjs";
import { field, truthy } from "./plain.mjs";
import { repr, shown } from "./repr.mjs";
import { LAUNCH, SYSTEM_PARTS, TURN_CLOSING } from "./template.mjs";
import { strip } from "./text.mjs";

const MEDIA = new Map([["image", "<|image|>"], ["audio", "<|audio|>"], ["video", "<|video|>"]]);
const ALIASES = new Map([["image_url", "image"], ["input_audio", "audio"]]);

/** Write the content of a message; whether it held media, and whether it said anything. */
export function writeContent(out, template, message, where, ofModel) {
  const content = message.get("content") ?? null;
  if (content === null) return { media: false, says: false };
  const spoken = ofModel ? withoutThoughts : strip;
  const looksAtWhatIsLeft = template.since(SYSTEM_PARTS); // older templates look at what came in
  if (typeof content === "string") {
    const text = spoken(content);
    out.write(text);
    return { media: false, says: truthy(looksAtWhatIsLeft ? text : content) };
  }
  if (!Array.isArray(content)) throw bad(where, shown(content), "a string or a list of parts");
  let media = false;
  let said = false;
  content.forEach((part, index) => {
    const at = `${where}[${index}]`;
    const text = textOf(part, at);
    if (text === null) {
      const token = mediaToken(part, template, at);
      out.write(template.revision === LAUNCH && token !== MEDIA.get("audio") ? `\n\n${token}\n\n` : token);
      media = true;
    } else {
      const left = spoken(text);
      out.write(left);
      said ||= truthy(left);
    }
  });
  return { media, says: looksAtWhatIsLeft ? said || media : truthy(content) };
}

/**
 * Write what the leading system message says. Parts are joined with a space after each; before 2026-04-28 a list was
 * printed as Python prints it.
 */
export function writeSystem(out, template, content, where) {
  if (content === null) return;
  if (typeof content === "string") {
    out.write(strip(content));
    return;
  }
  if (!Array.isArray(content)) throw bad(where, shown(content), "a string or a list of text parts");
  if (!template.since(SYSTEM_PARTS)) {
    out.write(repr(content));
    return;
  }
  content.forEach((part, index) => {
    const at = `${where}[${index}]`;
    const text = textOf(part, at);
    if (text === null) throw bad(at, shown(part), "a text part: no other can be written here");
    out.write(strip(text), " ");
  });
}

/** The text of a text part, null for a part of another type. */
export function textOf(part, where) {
  if (!(part instanceof Map)) throw bad(where, shown(part), "a part such as {'type': 'text', 'text': ...}");
  if (part.get("type") !== "text") return null;
  const text = part.get("text");
  if (typeof text !== "string") throw bad(`${where}.text`, shown(text), "a string");
  return text;
}

/** The placeholder of an image, audio or video part. */
export function mediaToken(part, template, where) {
  const kind = field(part, "type");
  const token = MEDIA.get(template.since(TURN_CLOSING) ? (ALIASES.get(kind) ?? kind) : kind);
  if (token !== undefined) return token;
  const known = `text, ${[...MEDIA.keys()].join(", ")}, and since ${TURN_CLOSING} ${[...ALIASES.keys()].join(", ")}`;
  throw bad(`${where}.type`, shown(kind), `${known}: ${template.name} drops others`);
}

/** `text` without everything from `<|channel>` to the next `<channel|>`, trimmed. */
function withoutThoughts(text) {
  const kept = text.split("<channel|>").map((part) => part.split("<|channel>", 1)[0]);
  return strip(kept.join(""));
}
