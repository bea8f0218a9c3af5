/** Masks of constrained sequences, made on another thread between two steps. */
import assert from "node:assert/strict";
import type { ServeError } from "@tessera/proto";
import type { FinishCause } from "../request/types.js";
import type { Sequence } from "./active.js";

/** A step waits so long for masks, once for each; they take some 0.1 ms, the first of a grammar a few. */
const WAIT_MS = 5;

export interface Settled {
  sequence: Sequence;
  /** The request's own failure, or the end of the choice. */
  outcome: ServeError | FinishCause;
}

function isPending({ parts: { matcher } }: Sequence): boolean {
  if (matcher === undefined) return false;
  return matcher.mask === undefined && !matcher.ended && matcher.failure === undefined;
}

/**
 * Before `min_tokens` stop ids are suppressed. Where the grammar lets nothing but them come its end wins: an answer that
 * cannot be longer is whole.
 */
function isWhole({ parts: { matcher }, request, tokens }: Sequence): boolean {
  const { minTokens, promptIds, stopTokenIds } = request.prepared;
  const made = tokens.length - promptIds.length;
  if (made === 0 || made >= minTokens || matcher?.mask === undefined || !matcher.mayEnd)
    return false;
  const others = Uint8Array.from(matcher.mask);
  for (const id of stopTokenIds) others[id >> 3] = (others[id >> 3] ?? 0) & ~(1 << (id & 7));
  return others.every((byte) => byte === 0);
}

export class Masks {
  /** Sequences whose mask is waited for beside the steps, or was found missing for good. */
  private readonly late = new Set<Sequence>();
  /** Of those, the ones that a step has waited for in vain. */
  private readonly passed = new Set<Sequence>();

  /** `onLate`: a mask came after its step had gone without it, or is known not to come. */
  constructor(private readonly onLate: () => void) {}

  get anyLate(): boolean {
    return this.late.size > 0;
  }

  /** Waits for the masks of `sequences`, a little. → those that have no next token */
  async settle(sequences: Sequence[]): Promise<Settled[]> {
    const pending = sequences.filter((one) => isPending(one) && !this.passed.has(one));
    if (pending.length > 0) await this.wait(pending);
    for (const sequence of pending.filter(isPending)) {
      this.passed.add(sequence);
      this.follow(sequence);
    }
    return sequences.flatMap((sequence): Settled[] => {
      const { matcher } = sequence.parts;
      if (matcher?.failure !== undefined) return [{ sequence, outcome: matcher.failure }];
      const ended = matcher?.ended === true || isWhole(sequence);
      return ended ? [{ sequence, outcome: { reason: "stop" } }] : [];
    });
  }

  private async wait(pending: Sequence[]): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, WAIT_MS)));
    const all = Promise.all(pending.map(({ parts }) => parts.matcher?.ready ?? Promise.resolve()));
    await Promise.race([all, late]);
    clearTimeout(timer);
  }

  /** If it has no mask yet, `onLate` is told when that is settled; it may be so already, without one. */
  follow(sequence: Sequence): void {
    if (this.late.has(sequence) || sequence.ready) return;
    this.late.add(sequence);
    void sequence.parts.matcher?.ready.then(() => {
      this.passed.delete(sequence);
      if (this.late.delete(sequence)) this.onLate();
    });
  }

  /** A sequence has ended. */
  forget(sequence: Sequence): void {
    this.late.delete(sequence);
    this.passed.delete(sequence);
  }

  /** @throws AssertionError when a mask is waited for that no one of `running` needs. */
  audit(running: readonly Sequence[]): void {
    const all = new Set(running);
    for (const one of [...this.late, ...this.passed]) assert(all.has(one), "a mask for nobody");
  }
}
