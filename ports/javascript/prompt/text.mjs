// What Python does to strings where JavaScript does something else.

// Unicode White_Space and the separators \x1c-\x1f. JavaScript's trim() leaves \x1c-\x1f and \x85, and takes U+FEFF.
const SPACE = /[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** str.strip(). By hand: a pattern for the end of a string takes quadratic time on runs of spaces. */
export function strip(text) {
  let start = 0;
  let end = text.length;
  while (start < end && SPACE.test(text[start])) start += 1;
  while (end > start && SPACE.test(text[end - 1])) end -= 1;
  return text.slice(start, end);
}

/** The order of two strings by code points. By UTF-16 units, as `<` has it, an emoji comes before U+FF5E. */
export function byCodePoints(one, other) {
  const shorter = Math.min(one.length, other.length);
  for (let at = 0; at < shorter; at += 1) {
    if (one[at] !== other[at]) return one.codePointAt(at) - other.codePointAt(at);
  }
  return one.length - other.length;
}
