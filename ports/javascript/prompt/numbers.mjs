// Numbers as Python prints them. The templates were run by Python: a prompt has `2.0` where the caller wrote 2.0, and
// every digit of an int, however long. A JavaScript number has lost both.

/** A number of a JSON text with its Python spelling. */
export class PyNumber {
  /** @param {string} text what Python's str() gives @param {boolean} isFloat whether Python would read a float */
  constructor(text, isFloat) {
    this.text = text;
    this.isFloat = isFloat;
    Object.freeze(this);
  }

  /** Of a JSON number. As in Python, one without a point and an exponent is an int; `-0` is the int 0. */
  static ofLiteral(literal) {
    if (/[.eE]/.test(literal)) return new PyNumber(floatText(Number(literal)), true);
    return new PyNumber(literal === "-0" ? "0" : literal, false);
  }

  /** Whether Python calls it false. */
  get isZero() {
    return Number(this.text) === 0;
  }

  /** 1e400 is infinite, for Python's JSON reader too. */
  get isFinite() {
    return this.text !== "inf" && this.text !== "-inf" && this.text !== "nan";
  }

  /** A string that is the same for numbers that Python calls equal: 1 and 1.0, 2**53 and 2.0**53. */
  get key() {
    if (!this.isFloat) return this.text;
    const value = Number(this.text);
    return Number.isInteger(value) ? BigInt(value).toString() : this.text;
  }
}

/**
 * What Python's repr() gives for a float. The digits are those of JavaScript: the fewest that are read back as the
 * same number. The form differs: `1e-05` for JavaScript's `0.00001`, `1e+16` for 10000000000000000, `2.0` for 2.
 */
export function floatText(value) {
  if (Number.isNaN(value)) return "nan";
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  if (!Number.isFinite(value)) return `${sign}inf`;
  const [mantissa, power] = Math.abs(value).toExponential().split("e");
  const digits = mantissa.replace(".", "");
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) {
    const padded = String(Math.abs(exponent)).padStart(2, "0");
    return `${sign}${mantissa}e${exponent < 0 ? "-" : "+"}${padded}`;
  }
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}
