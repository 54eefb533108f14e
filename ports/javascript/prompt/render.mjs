// Gemma 4's chat format: prompts equal, byte for byte, to what the published templates give.

import { writeSystem } from "./content.mjs";
import { Output } from "./output.mjs";
import { plainMessages, plainTools } from "./plain.mjs";
import { problem } from "./refused.mjs";
import { shown } from "./repr.mjs";
import { LAUNCH, Template, TURN_CLOSING } from "./template.mjs";
import { Declarations } from "./tools.mjs";
import { Turns } from "./turns.mjs";

export { Refused } from "./refused.mjs";
export { TEMPLATES } from "./template.mjs";

const EMPTY_THOUGHT = "<|channel>thought\n<channel|>";

/**
 * The prompt of a conversation; throws Refused for what the template refuses or would drop without a word.
 *
 * `messages` and `tools` are in the form of the OpenAI API, read by parse() of json.mjs. `template` is the name of one
 * (`"small@2026-07-09"`; `"large"` is the current one). `enable_thinking` may be null: a caller who says nothing.
 */
export function render({
  messages,
  template: name,
  tools = null,
  enable_thinking = null,
  add_generation_prompt = true,
  preserve_thinking = false,
}) {
  const template = Template.parse(name);
  requireBoolean("add_generation_prompt", add_generation_prompt);
  requireBoolean("preserve_thinking", preserve_thinking);
  if (enable_thinking !== null) requireBoolean("enable_thinking", enable_thinking);
  const thinking = enable_thinking === true;
  const spoken = plainMessages(messages);
  const declared = plainTools(tools);
  const headed = ["system", "developer"].includes(spoken[0].get("role"));
  const out = new Output();
  out.write("<bos>");
  writeSystemTurn(out, template, headed ? spoken[0] : null, declared, thinking);
  const first = headed ? 1 : 0;
  const end = new Turns(out, template, preserve_thinking).write(spoken.slice(first), first);
  if (add_generation_prompt) writeGenerationPrompt(out, template, end, thinking);
  return out.text();
}

/** The system turn, which holds the switch for thinking, what the system message says and the tools. */
function writeSystemTurn(out, template, system, tools, thinking) {
  if (system === null && tools.length === 0 && !thinking) return;
  out.write("<|turn>system\n");
  if (thinking) out.write(template.revision === LAUNCH ? "<|think|>" : "<|think|>\n");
  if (system !== null) writeSystem(out, template, system.get("content") ?? null, "messages[0].content");
  const declarations = new Declarations(out, template);
  tools.forEach((tool, index) => {
    out.write("<|tool>");
    declarations.write(tool, `tools[${index}]`);
    out.write("<tool|>");
  });
  out.write("<turn|>\n");
}

/**
 * The begin of the model's turn, unless it is open already.
 *
 * The large models get an empty thought where thinking is off; since 2026-07-09 all get an open one after a tool's
 * response where it is on.
 */
function writeGenerationPrompt(out, template, end, thinking) {
  const launch = template.revision === LAUNCH;
  const opens = end !== "response" && (launch || end !== "call");
  if (opens) out.write("<|turn>model\n");
  if (template.size === "large" && !thinking && (opens || launch)) out.write(EMPTY_THOUGHT);
  else if (template.since(TURN_CLOSING) && end === "response" && thinking) out.write("<|channel>thought\n");
}

function requireBoolean(name, value) {
  if (typeof value !== "boolean") throw problem(name, shown(value), "true or false", "choose one");
}
