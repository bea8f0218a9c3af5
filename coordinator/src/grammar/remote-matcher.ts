/** A matcher in a thread, seen from the engine loop. */
import { ServeError } from "@tessera/proto";
import type { Matcher, TokenAhead, TokenMask } from "../request/constraint.js";
import type { MatcherState } from "./protocol.js";

export interface MatcherHome {
  accept(matcher: RemoteMatcher, tokenId: number): void;
  lookAhead(matcher: RemoteMatcher, tokenIds: readonly number[]): void;
  close(matcher: RemoteMatcher): void;
}

export class RemoteMatcher implements Matcher {
  /** All accepted tokens: another thread can take the matcher over. */
  readonly tokens: number[] = [];
  mask: TokenMask | undefined;
  /** Set together with `mask`. */
  ahead: readonly TokenAhead[] = [];
  mayEnd = false;
  ended = false;
  failure: ServeError | undefined;
  ready: Promise<void>;
  private settle: () => void = () => undefined;
  private closed = false;

  constructor(
    readonly id: number,
    readonly grammarId: number,
    /** Of the request, for errors. */
    readonly field: string,
    private readonly home: MatcherHome,
  ) {
    this.ready = this.wait();
  }

  private wait(): Promise<void> {
    return new Promise((resolve) => (this.settle = resolve));
  }

  accept(tokenId: number): void {
    if (this.closed || this.failure !== undefined || this.ended) return;
    const { mask } = this;
    const bit = ((mask?.[tokenId >> 3] ?? 0) >> (tokenId & 7)) & 1;
    if (bit !== 1) throw new RangeError(`token ${tokenId} is not allowed by the mask`);
    this.tokens.push(tokenId);
    const [next, ...later] = this.ahead;
    const known = next?.tokenId === tokenId ? next : undefined;
    this.mask = known?.mask;
    this.mayEnd = known?.mayEnd ?? false;
    this.ahead = known === undefined ? [] : later;
    if (known === undefined) this.ready = this.wait();
    this.home.accept(this, tokenId);
  }

  lookAhead(tokenIds: readonly number[]): void {
    // Where the mask is there already its `ahead` is, too.
    if (this.closed || this.mask !== undefined || tokenIds.length === 0) return;
    this.home.lookAhead(this, tokenIds);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.mask = undefined;
    this.ahead = [];
    this.settle();
    this.home.close(this);
  }

  /** What its thread says; of an earlier position when the matcher has moved to another thread since. */
  take(
    { state, position, mayEnd }: MatcherState,
    mask: TokenMask | undefined,
    ahead: readonly TokenAhead[] = [],
  ): void {
    if (this.closed || position > this.tokens.length) return;
    if (state === "rejected")
      return this.fail(
        this.internal(`token ${this.tokens[position]} was masked in, then rejected`),
      );
    // A mask that was looked ahead at may be on its way to the ranks, with those behind it.
    if (position !== this.tokens.length || this.mask !== undefined) return;
    if (state === "stuck") return this.fail(this.internal("no token can follow: a dead end"));
    this.ended = state === "ended";
    this.mayEnd = mayEnd;
    this.mask = mask;
    this.ahead = ahead;
    this.settle();
  }

  fail(error: ServeError): void {
    if (this.failure !== undefined || this.closed) return;
    this.failure = error;
    this.mask = undefined;
    this.ahead = [];
    this.settle();
  }

  private internal(what: string): ServeError {
    return ServeError.field(
      this.field,
      `the grammar is at fault after ${this.tokens.length} tokens: ${what}`,
      "INTERNAL",
    );
  }
}
