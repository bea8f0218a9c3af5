/** Masks whose coming is in a test's hands. */
import type { ServeError } from "@tessera/proto";
import type { Grammar, Matcher, TokenMask } from "../request/constraint.js";

/** A matcher in the test's hands. */
export class HandMatcher implements Matcher {
  mask: TokenMask | undefined;
  ended = false;
  mayEnd = false;
  failure: ServeError | undefined;
  ready: Promise<void>;
  closed = false;
  private settle: () => void = () => undefined;

  constructor(failure?: ServeError) {
    this.ready = this.wait();
    if (failure !== undefined) this.fail(failure);
  }
  private wait(): Promise<void> {
    return new Promise((resolve) => (this.settle = resolve));
  }
  /** Every token may come. */
  give(): void {
    this.mask = new Uint8Array(250).fill(0xff);
    this.settle();
  }
  fail(error: ServeError): void {
    this.failure = error;
    this.settle();
  }
  accept(): void {
    this.mask = undefined;
    this.ready = this.wait();
  }
  close(): void {
    this.closed = true;
    this.settle();
  }
}

/** Of one choice. */
export function grammarOf(matcher: HandMatcher) {
  const state = { closed: 0 };
  const grammar: Grammar = { open: () => matcher, close: () => state.closed++ };
  return { grammar, state };
}
