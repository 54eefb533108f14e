// The turns of a conversation after the system turn.

import { Calls, namesById } from "./calls.mjs";
import { writeContent } from "./content.mjs";
import { truthy } from "./plain.mjs";
import { bad } from "./refused.mjs";
import { shown } from "./repr.mjs";
import { LAUNCH, TURN_CLOSING } from "./template.mjs";

/** Writes messages for one template. */
export class Turns {
  #out;
  #template;
  #preserveThinking;
  #calls;
  #launch;
  #current;

  constructor(out, template, preserveThinking) {
    this.#out = out;
    this.#template = template;
    this.#preserveThinking = preserveThinking;
    this.#calls = new Calls(out, template);
    this.#launch = template.revision === LAUNCH;
    this.#current = template.since(TURN_CLOSING);
  }

  /**
   * Write all messages, of which the first is `messages[first]` of the conversation.
   *
   * Gives how the last one ends: "call" waits for the tool, "response" for the model; others are "media" and "". Since
   * 2026-04-10 a message of role tool is no turn: it answers a call within the turn that made it.
   */
  write(messages, first) {
    const roles = messages.map((message) => message.get("role"));
    const lastUser = roles.lastIndexOf("user");
    const spoken = [...messages.keys()].filter((index) => this.#launch || roles[index] !== "tool");
    if (messages.length > 0 && spoken[0] !== 0) throw noCall(`messages[${first}]`);
    let end = "";
    spoken.forEach((index, at) => {
      end = this.#writeMessage(messages[index], messages.slice(index + 1, spoken[at + 1]), first + index, {
        recent: index > lastUser,
        before: roles[spoken[at - 1]],
        after: roles[spoken[at + 1]],
      });
    });
    return end;
  }

  /** Write `messages[index]` of the conversation with the tools' answers to it; how it ends. */
  #writeMessage(message, answers, index, { recent, before, after }) {
    const where = `messages[${index}]`;
    const role = message.get("role") === "assistant" ? "model" : message.get("role");
    const goesOn = !this.#launch && role === "model" && before === "assistant";
    if (!goesOn) this.#out.write(`<|turn>${role}\n`);
    const calls = listIn(message, "tool_calls", where);
    const responses = listIn(message, "tool_responses", where);
    this.#writeReasoning(message, where, recent, calls.length > 0);
    calls.forEach((call, at) => this.#calls.writeCall(call, `${where}.tool_calls[${at}]`));
    responses.forEach((response, at) => this.#calls.writeNative(response, `${where}.tool_responses[${at}]`));
    this.#writeAnswers(answers, calls, responses, index + 1);
    const answered = responses.length > 0 || answers.length > 0;
    const { media, says } = writeContent(this.#out, this.#template, message, `${where}.content`, role === "model");
    let end = calls.length > 0 ? "call" : "";
    if (answered) end = "response";
    if (media && !this.#current) end = "media";
    this.#close(role, end, after, answered, says);
    return end;
  }

  #writeAnswers(answers, calls, responses, first) {
    if (answers.length === 0) return;
    if (responses.length > 0 || calls.length === 0) throw noCall(`messages[${first}]`);
    const called = namesById(calls);
    answers.forEach((answer, at) => this.#calls.writeToolMessage(answer, called, `messages[${first + at}]`));
  }

  /** End the turn, or leave it open where a tool's response or the rest of the answer follows. */
  #close(role, end, after, answered, says) {
    if (end === "call" && !this.#launch) {
      this.#out.write("<|tool_response>");
      return;
    }
    const waits = answered && !says;
    const goesOn = role === "model" && after === "assistant";
    const leftOpen = this.#current ? goesOn || (waits && after === undefined) : waits;
    if (!leftOpen) this.#out.write("<turn|>\n");
  }

  /** The thoughts after the last user turn: of tool calls alone before 2026-07-09, of every message since. */
  #writeReasoning(message, where, recent, withCalls) {
    if (this.#launch) return;
    const key = truthy(message.get("reasoning")) ? "reasoning" : "reasoning_content";
    const thought = message.get(key);
    const wanted = recent && (withCalls || this.#current);
    const kept = this.#current && this.#preserveThinking && withCalls;
    if (!truthy(thought) || !(wanted || kept)) return;
    if (typeof thought !== "string") throw bad(`${where}.${key}`, shown(thought), "a string");
    this.#out.write("<|channel>thought\n", thought, "\n<channel|>");
  }
}

function listIn(message, key, where) {
  const value = message.get(key);
  if (!truthy(value)) return [];
  if (!Array.isArray(value)) throw bad(`${where}.${key}`, shown(value), "a list");
  return value;
}

function noCall(where) {
  return bad(where, "a tool's answer without a call before it", "it after a message with tool_calls");
}
