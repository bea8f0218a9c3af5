/** Masks whose coming is in a test's hands. */
import type { ServeError } from "@tessera/proto";
import type { Grammar, Matcher, TokenAhead, TokenMask } from "../request/constraint.js";

/** A matcher in the test's hands. */
export class HandMatcher implements Matcher {
  mask: TokenMask | undefined;
  ended = false;
  mayEnd = false;
  ahead: TokenAhead[] = [];
  failure: ServeError | undefined;
  ready: Promise<void>;
  closed = false;
  private settle: () => void = () => undefined;
  private asked: readonly number[] = [];

  constructor(failure?: ServeError) {
    this.ready = this.wait();
    if (failure !== undefined) this.fail(failure);
  }
  private wait(): Promise<void> {
    return new Promise((resolve) => (this.settle = resolve));
  }
  /** Every token may come, and behind it as many as were looked ahead at. */
  give(): void {
    this.mask = new Uint8Array(250).fill(0xff);
    const mask = this.mask;
    this.ahead = this.asked.map((tokenId) => ({ tokenId, mask, mayEnd: false }));
    this.settle();
  }
  fail(error: ServeError): void {
    this.failure = error;
    this.settle();
  }
  accept(tokenId: number): void {
    const [next, ...later] = this.ahead;
    const known = next?.tokenId === tokenId;
    this.ahead = known ? later : [];
    this.mask = known ? next.mask : undefined;
    this.asked = [];
    if (!known) this.ready = this.wait();
  }
  lookAhead(tokenIds: readonly number[]): void {
    if (this.mask === undefined) this.asked = tokenIds;
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
