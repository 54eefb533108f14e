// The prompt as it grows.

export class Output {
  #pieces = [];

  write(...pieces) {
    this.#pieces.push(...pieces);
  }

  text() {
    return this.#pieces.join("");
  }
}

/** Commas between the fields of an object or the members of a list. */
export class Commas {
  #out;
  #any = false;

  constructor(out) {
    this.#out = out;
  }

  /** Begin the next one. */
  next() {
    if (this.#any) this.#out.write(",");
    this.#any = true;
  }
}
