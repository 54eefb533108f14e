// Compare render() with the prompts of the fixtures: node ports/javascript/prompt/check.mjs [fixtures/prompts]

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { parse } from "./json.mjs";
import { Refused, render } from "./render.mjs";

const OURS = fileURLToPath(new URL("../../../fixtures/prompts", import.meta.url));
const AROUND = 40;

/** Every prompt of a conversation: its settings, and the bytes that are expected (null where a refusal is). */
function* promptsOf(conversation) {
  for (const golden of conversation.get("renders")) {
    const prompt = golden.get("prompt") ?? null;
    const expected = prompt === null ? null : Buffer.from(prompt.get("utf8_base64"), "base64");
    for (const when of golden.get("when")) {
      for (const template of when.get("templates")) {
        for (const enable_thinking of when.get("enable_thinking")) {
          for (const add_generation_prompt of when.get("add_generation_prompt")) {
            yield { settings: { template, enable_thinking, add_generation_prompt }, expected };
          }
        }
      }
    }
  }
}

/** The bytes of a prompt, null where it is refused. Any other error is a bug and ends the check. */
function bytesOf(conversation, settings) {
  try {
    const text = render({
      messages: conversation.get("messages"),
      tools: conversation.get("tools") ?? null,
      preserve_thinking: conversation.get("preserve_thinking") ?? false,
      ...settings,
    });
    return Buffer.from(text, "utf8");
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

function differ(got, expected) {
  return got === null || expected === null ? got !== expected : !got.equals(expected);
}

/** Both sides from shortly before the first byte that differs. */
function difference(got, expected) {
  if (got === null) return "refused";
  if (expected === null) return "not refused";
  let at = 0;
  while (at < got.length && got[at] === expected[at]) at += 1;
  const shown = (bytes) => JSON.stringify(bytes.subarray(Math.max(0, at - AROUND), at + AROUND).toString());
  return `byte ${at}\n  got      ${shown(got)}\n  expected ${shown(expected)}`;
}

const folder = join(process.argv[2] ?? OURS, "chat");
let asked = 0;
let equal = 0;
let first = null;
for (const file of readdirSync(folder).filter((name) => name.endsWith(".json")).sort()) {
  const conversation = parse(readFileSync(join(folder, file), "utf8"));
  for (const { settings, expected } of promptsOf(conversation)) {
    const got = bytesOf(conversation, settings);
    asked += 1;
    if (!differ(got, expected)) equal += 1;
    else first ??= `${conversation.get("id")} ${JSON.stringify(settings)}: ${difference(got, expected)}`;
  }
}
console.log(`${equal} of ${asked} prompts are equal`);
if (first !== null) console.log(`first that is not: ${first}`);
process.exitCode = asked > 0 && equal === asked ? 0 : 1;
