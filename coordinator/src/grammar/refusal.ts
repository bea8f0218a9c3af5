/** A constraint that is wrong or not supported. The thread throws it, the engine makes a ServeError of it. */
export class Refusal extends Error {
  constructor(
    message: string,
    /** Where in the source: a JSON pointer as `#/properties/a/not`. */
    readonly path?: string,
  ) {
    super(path === undefined ? message : `${path}: ${message}`);
    this.name = "Refusal";
  }
}
