// The one error that render() throws for what a caller can cause.

const LONGEST_PLACE = 120;

/** One line: where, what was got, what was expected, and the cure. */
export class Refused extends Error {
  name = "Refused";
}

/** The error `where: got ...; expected ...; cure`, on one line whatever its parts hold. */
export function problem(where, got, expected, cure) {
  return new Refused(`${where}: got ${got}; expected ${expected}; ${cure}`.replace(/\s+/g, " "));
}

/** The error of a conversation that the format cannot express. */
export function bad(where, got, expected) {
  const place = where.length <= LONGEST_PLACE ? where : `${where.slice(0, LONGEST_PLACE)}...`;
  return problem(place, got, expected, "mend the conversation");
}
