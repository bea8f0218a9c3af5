/**
 * Matchers in one thread. All that is asked within a turn of the event loop goes as one message. A thread that is slow
 * or breaks is replaced: the grammar at fault loses its matchers, the others go on from their tokens in a new thread.
 */
import { ServeError } from "@tessera/proto";
import type { GrammarLimits } from "./limits.js";
import type { FromThread, MatcherState, WorkItem } from "./protocol.js";
import { RemoteMatcher, type MatcherHome } from "./remote-matcher.js";
import type { CompilerInput } from "./source.js";
import { ThreadSeat, type SeatData, type SeatEvents, type SeatFault } from "./thread-seat.js";

type AcceptItem = Extract<WorkItem, { kind: "accept" }>;

/** New threads in a row that brought nothing, before all matchers fail. */
const MAX_REBUILDS = 3;

export interface HostEvents {
  /** The grammar must not be used again. */
  condemned(grammarId: number, message: string): void;
  /** Its masks hold up the others of its thread. */
  slow?(grammarId: number): void;
}

export class Host implements SeatEvents, MatcherHome {
  private readonly inputs = new Map<number, CompilerInput>();
  private readonly matchers = new Map<number, RemoteMatcher>();
  private outbox: WorkItem[] = [];
  private scheduled = false;
  private rebuilds = 0;
  private closed = false;
  /** Batches of work sent. */
  messageCount = 0;

  constructor(
    private readonly data: SeatData,
    private seat: ThreadSeat | undefined,
    private readonly events: HostEvents,
  ) {
    seat?.listen(this);
  }

  private get limits(): GrammarLimits {
    return this.data.limits;
  }

  /** It has a thread, or one that starts. */
  get running(): boolean {
    return this.seat !== undefined;
  }

  get matcherCount(): number {
    return this.matchers.size;
  }

  /** `compiled`: the thread has it already. */
  keep(grammarId: number, input: CompilerInput, compiled: boolean): void {
    this.inputs.set(grammarId, input);
    if (this.seat === undefined) this.thread();
    else if (!compiled) this.load(this.seat, grammarId, input);
  }

  drop(grammarId: number): void {
    if (!this.inputs.delete(grammarId)) return;
    this.flush();
    this.seat?.post({ kind: "drop", grammarId }, this.limits.stepMs);
  }

  add(matcher: RemoteMatcher): void {
    this.matchers.set(matcher.id, matcher);
    const { id: matcherId, grammarId } = matcher;
    this.enqueue({ kind: "open", matcherId, grammarId, tokens: [...matcher.tokens] });
  }

  /** Takes a grammar's matchers away, to be added elsewhere. */
  release(grammarId: number): RemoteMatcher[] {
    const leaving = [...this.matchers.values()].filter((each) => each.grammarId === grammarId);
    for (const matcher of leaving) this.close(matcher);
    return leaving;
  }

  /** Several of one turn are one piece of work, with one mask. */
  accept(matcher: RemoteMatcher, tokenId: number): void {
    const waiting = this.waitingOf(matcher);
    if (waiting !== undefined) waiting.tokenIds.push(tokenId);
    else this.enqueue({ kind: "accept", matcherId: matcher.id, tokenIds: [tokenId], ahead: [] });
  }

  /** Of use as long as the accepted tokens have not left. */
  lookAhead(matcher: RemoteMatcher, tokenIds: readonly number[]): void {
    const waiting = this.waitingOf(matcher);
    if (waiting !== undefined) waiting.ahead = tokenIds;
  }

  private waitingOf(matcher: RemoteMatcher): AcceptItem | undefined {
    return this.outbox.findLast(
      (item): item is AcceptItem => item.kind === "accept" && item.matcherId === matcher.id,
    );
  }

  close(matcher: RemoteMatcher): void {
    if (!this.matchers.delete(matcher.id)) return;
    this.enqueue({ kind: "close", matcherId: matcher.id });
  }

  async stop(error: ServeError): Promise<void> {
    this.closed = true;
    for (const matcher of this.matchers.values()) matcher.fail(error);
    this.matchers.clear();
    await this.seat?.close();
  }

  /** A new one is told all grammars. */
  private thread(): ThreadSeat {
    if (this.seat !== undefined) return this.seat;
    const seat = new ThreadSeat(this.data, this);
    this.seat = seat;
    for (const [grammarId, input] of this.inputs) this.load(seat, grammarId, input);
    return seat;
  }

  private load(seat: ThreadSeat, grammarId: number, input: CompilerInput): void {
    seat.post({ kind: "load", grammarId, input }, this.limits.compileMs);
  }

  private enqueue(item: WorkItem): void {
    if (this.closed) return;
    this.outbox.push(item);
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(() => this.flush());
  }

  private flush(): void {
    this.scheduled = false;
    const items = this.outbox;
    this.outbox = [];
    if (items.length === 0) return;
    this.messageCount++;
    this.thread().post({ kind: "work", items }, this.limits.stepMs);
  }

  reply(message: FromThread): void {
    if (message.kind === "refused") return this.condemn(message.grammarId, message.message);
    if (message.kind !== "worked") return;
    this.rebuilds = 0;
    const maskBytes = Math.ceil(this.data.vocabulary.ends.length / 8);
    const masks = Array.from(
      { length: message.masks.byteLength / maskBytes },
      (_, i) => new Uint8Array(message.masks, i * maskBytes, maskBytes),
    );
    for (const state of message.states) this.deliver(state, masks);
  }

  private deliver(state: MatcherState, masks: readonly Uint8Array[]): void {
    const matcher = this.matchers.get(state.matcherId);
    if (matcher === undefined) return;
    const ahead = (state.ahead ?? []).flatMap(({ mask: at, ...rest }) => {
      const mask = masks[at];
      return mask === undefined ? [] : [{ ...rest, mask }];
    });
    matcher.take(state, state.mask === undefined ? undefined : masks[state.mask], ahead);
    if (state.tookMs > this.limits.slowMaskMs && state.position > 0)
      this.events.slow?.(matcher.grammarId);
  }

  fault(fault: SeatFault): void {
    this.seat = undefined;
    this.outbox = [];
    const why =
      fault.kind === "slow"
        ? `a step took longer than ${this.limits.stepMs} ms, the limit`
        : `it breaks XGrammar: ${fault.message}`;
    this.condemn(fault.grammarId, why);
    if (++this.rebuilds > MAX_REBUILDS) {
      const error = new ServeError(
        "INTERNAL",
        `constraints: ${MAX_REBUILDS} threads failed in a row`,
      );
      for (const matcher of this.matchers.values()) matcher.fail(error);
      this.matchers.clear();
    }
    this.rebuild();
  }

  private condemn(grammarId: number, why: string): void {
    this.inputs.delete(grammarId);
    for (const matcher of this.matchers.values()) {
      if (matcher.grammarId !== grammarId) continue;
      matcher.fail(ServeError.field(matcher.field, why));
      this.matchers.delete(matcher.id);
    }
    this.events.condemned(grammarId, why);
  }

  /** Without matchers the next thread waits until there is one. */
  private rebuild(): void {
    if (this.closed) return;
    for (const matcher of this.matchers.values()) this.add(matcher);
  }
}
