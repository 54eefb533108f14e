// What JavaScript does unlike Python, one test each: node --test ports/javascript/prompt/traps.test.mjs

import assert from "node:assert/strict";
import { test } from "node:test";

import { parse } from "./json.mjs";
import { floatText } from "./numbers.mjs";
import { Refused, render, TEMPLATES } from "./render.mjs";
import { repr } from "./repr.mjs";
import { byCodePoints, strip } from "./text.mjs";

const USER = { role: "user", content: "Hi" };

/** The fields of a call with these arguments, given as JSON text. */
function written(args, template = "small") {
  const call = parse(`{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": ${args}}}]}`);
  return /call:f\{(.*)\}<tool_call\|>/s.exec(render({ messages: [USER, call], template }))[1];
}

function refusal(messages, more = {}) {
  let said = null;
  assert.throws(() => render({ messages, template: "small", ...more }), (error) => {
    said = error.message;
    return error instanceof Refused;
  });
  assert.doesNotMatch(said, /\n/);
  return said;
}

test("numbers are written as Python prints them", () => {
  const numbers = [
    ["2.0", "2.0"], ["2", "2"], ["151.5", "151.5"], ["1e-7", "1e-07"], ["0.00001", "1e-05"], ["0.0001", "0.0001"],
    ["1e15", "1000000000000000.0"], ["1E16", "1e+16"], ["1e22", "1e+22"], ["123456789012345678", "123456789012345678"],
    ["0.1e1", "1.0"], ["-0", "0"], ["-0.0", "-0.0"], ["1e-400", "0.0"], ["5e-324", "5e-324"], ["1.5e300", "1.5e+300"],
    ["9007199254740993", "9007199254740993"], ["9007199254740993.0", "9007199254740992.0"], ["1e100", "1e+100"],
  ];
  for (const [literal, expected] of numbers) assert.equal(written(`{"a": ${literal}}`), `a:${expected}`);
  assert.equal(floatText(0.1 + 0.2), "0.30000000000000004");
});

test("what cannot be a number of a prompt is refused", () => {
  const called = (value) => ({ function: { name: "f", arguments: { value } } });
  const call = (value) => [USER, { role: "assistant", tool_calls: [called(value)] }];
  assert.match(refusal(call(NaN)), /arguments\.value: got nan/);
  assert.match(refusal(call(-Infinity)), /got -inf/);
  assert.match(refusal(call(2 ** 53)), /lost its digits; expected parse\(\) of json\.mjs/);
  assert.match(refusal(call(parse("1e400"))), /got inf/);
  assert.match(refusal(call(parse("1".repeat(4301)))), /thousands of digits/);
  assert.throws(() => parse("NaN"), SyntaxError);
});

test("keys stay in order, also those that look like integers", () => {
  assert.equal(written('{"b": 1, "A": 2, "B": 3, "10": 4, "9": 5}'), "10:4,9:5,A:2,b:1,B:3");
  const parts = parse('[{"text": "x", "type": "text"}]');
  const text = render({ messages: [{ role: "system", content: parts }], template: "small@2026-04-02" });
  assert.match(text, /\[\{'text': 'x', 'type': 'text'\}\]/);
  assert.equal(repr(parse('{"b": 1, "1": 2, "__proto__": 3, "b": 4}')), "{'b': 4, '1': 2, '__proto__': 3}");
});

test("keys are sorted by code point", () => {
  assert.ok(byCodePoints("\u{1F642}", "\uFF5E") > 0);
  assert.ok("\u{1F642}" < "\uFF5E");
  assert.equal(written('{"🙂": 1, "～": 2}'), "～:2,🙂:1");
});

test("white space is what Python strips", () => {
  assert.equal(strip("\x1c\x1f\x85\u00a0\u3000x \n"), "x");
  assert.equal(strip("\ufeffx\u200b"), "\ufeffx\u200b");
  assert.equal(strip(" \t"), "");
});

test("lists and texts are printed as Python prints them", () => {
  const words = '"a\'b", "a\\"b", "\'\\"", "\\n\\t\\\\\\u0000\\u00a0\\u200b\\ue000🙂"';
  const value = parse(`[${words}, null, true, false, 2.0, {}]`);
  const expected = `["a'b", 'a"b', '\\'"', '\\n\\t\\\\\\x00\\xa0\\u200b\\ue000🙂', None, True, False, 2.0, {}]`;
  assert.equal(repr(value), expected);
  assert.equal(repr("\u{10ffff}"), "'\\U0010ffff'");
});

/** What the current template makes of a tool with these parameters, given as JSON text. */
function declared(parameters) {
  const tools = parse(`[{"function": {"name": "f", "parameters": ${parameters}}}]`);
  const text = render({ messages: [USER], tools, template: "small" });
  return /declaration:f\{description:<\|"\|><\|"\|>(.*)\}<tool\|>/s.exec(text)[1];
}

test("an empty list, an empty object and zero are false", () => {
  for (const nothing of ["{}", "[]", "0", "0.0", "-0.0", '""', "null", "false"]) {
    assert.equal(declared(nothing), "");
    assert.equal(declared(`{"required": ${nothing}}`), ",parameters:{");
  }
});

test("the members of a string are its characters", () => {
  assert.equal(declared('{"required": "a🙂"}'), ',parameters:{required:[<|"|>a<|"|>,<|"|>🙂<|"|>],');
});

test("ids that Python calls equal are equal", () => {
  const answer = (id) => {
    const call = parse('{"id": 1, "function": {"name": "f", "arguments": {}}}');
    const answered = parse(`{"role": "tool", "tool_call_id": ${id}, "content": "x"}`);
    const messages = [{ role: "assistant", tool_calls: [call] }, answered];
    return /response:(\w+)/.exec(render({ messages, template: "small" }))[1];
  };
  assert.deepEqual(["1", "1.0", "true", '"1"'].map(answer), ["f", "f", "f", "unknown"]);
});

test("half a surrogate pair is refused", () => {
  assert.match(refusal([{ role: "user", content: "a\ud800b" }]), /lone surrogate '\\ud800' in 'a\\ud800b'/);
  assert.match(refusal(parse('[{"role": "user", "content": "\\udc00"}]')), /lone surrogate/);
});

test("values nested too deep are refused, and so are those without end", () => {
  const endless = [];
  endless.push(endless);
  assert.match(refusal([{ role: "assistant", tool_calls: endless }]), /nested deeper than 104/);
  assert.match(refusal([{ role: endless }]), /role: got a value that cannot be printed/);
  assert.throws(() => parse("[".repeat(100_000)), SyntaxError);
});

test("names of JavaScript's own are names like any other", () => {
  for (const name of ["constructor", "__proto__", "toString"]) {
    assert.equal(written(`{"${name}": 1}`), `${name}:1`);
    assert.match(refusal([{ role: name, content: "" }]), /role: got/);
    assert.match(refusal([USER], { template: name }), /template: got/);
  }
});

test("plain objects are taken too", () => {
  const call = { function: { name: "f", arguments: { a: 0.5 } } };
  const messages = [USER, { role: "assistant", content: undefined, tool_calls: [call] }];
  for (const template of TEMPLATES) assert.match(render({ messages, template }), /call:f\{a:0\.5\}/);
});

test("what is no JSON text is an error", () => {
  const texts = ["", "[1,]", "{,}", '{"a" 1}', "01", "1.", ".5", "+1", "tru", '"\n"', '"\\x"', '"', "[1] 2", "\ufeff1"];
  for (const text of texts) assert.throws(() => parse(text), SyntaxError, text);
});
