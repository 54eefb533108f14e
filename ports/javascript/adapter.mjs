// The adapter: answers the suite's questions, one JSON object a line, until it is told to stop.
//
//     node adapter.mjs [--mistake NAME]
//     node adapter.mjs [--mistake NAME] REQUEST.json OUT.safetensors     one question; exit 0, 1, or 77 to skip

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

import { reply } from "./commands.mjs";
import { plant } from "./mistakes.mjs";

const SKIPPED = 77;

/** Gives the exit status. */
async function answerLines() {
  for await (const line of createInterface({ input: process.stdin })) {
    const answer = await reply(line);
    if (answer === null) break;
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  return 0;
}

/** Gives the exit status. Why a question was skipped, or what went wrong, is said on standard error. */
async function answerOne(request, out) {
  const asked = JSON.parse(readFileSync(request, "utf8"));
  const loaded = asked.model_dir ? await reply(JSON.stringify({ cmd: "load", model_dir: asked.model_dir })) : {};
  const answer = loaded.error ? loaded : await reply(JSON.stringify({ ...asked, cmd: "run", out }));
  if (answer.ok) return 0;
  console.error(answer.skipped ?? answer.error);
  return answer.skipped ? SKIPPED : 1;
}

async function main() {
  const { values, positionals } = parseArgs({ options: { mistake: { type: "string" } }, allowPositionals: true });
  if (values.mistake !== undefined) plant(values.mistake);
  if (positionals.length === 2) return answerOne(...positionals);
  if (positionals.length > 0) throw new Error(`got ${positionals.length} files, expected none, or a request and OUT`);
  return answerLines();
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error.message);
  process.exitCode = 2;
}
