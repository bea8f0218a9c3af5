/** Compiles constraints and opens matchers; keeps what it has compiled per tenant. */
import { createHash } from "node:crypto";
import { ServeError } from "@tessera/proto";
import type { ConstraintSpec, Grammar, GrammarCompiler, Matcher } from "../request/constraint.js";
import { CompilePool, type Compiled } from "./compile-pool.js";
import { Host } from "./host.js";
import { GRAMMAR_LIMITS, type GrammarLimits } from "./limits.js";
import type { SharedVocabulary } from "./protocol.js";
import { Refusal } from "./refusal.js";
import { RemoteMatcher } from "./remote-matcher.js";
import { sourceBytes, type CompilerInput } from "./source.js";
import type { SeatData, ThreadSeat } from "./thread-seat.js";

export interface GrammarEngineOptions {
  /** Bytes by token id; empty for ids that must never come but as a stop (special tokens, ids without text). */
  vocabulary: readonly Uint8Array[];
  /** Ids below it can be chosen; those beyond the vocabulary are never allowed. */
  selectableIds: number;
  /** Allowed where the grammar may end. Without one that can be chosen every constraint is refused. */
  stopTokenIds: readonly number[];
  limits?: Partial<GrammarLimits>;
}

export interface GrammarStats {
  /** Compiled and kept; those in use among them. */
  kept: number;
  used: number;
  matchers: number;
  /** Grammars that have a thread of their own. */
  alone: number;
  /** Batches of work sent to the thread that the other grammars share. */
  sharedMessages: number;
}

interface Kept {
  id: number;
  tenant: string;
  /** Settles once; a refusal is kept too. */
  compiled: Promise<CompilerInput>;
  input: CompilerInput | undefined;
  /** Requests that have it or wait for it, and open matchers. */
  users: number;
  host: Host | undefined;
  /** The host has no other grammar, and its thread came from the pool. */
  alone: boolean;
  condemned: string | undefined;
  /** It went to make room, maybe while it was compiled for nobody any more. */
  evicted: boolean;
  /** Masks that were slow beside other grammars. */
  strikes: number;
}

const RETRY_MS = 1000;
/** Slow masks before a grammar moves. */
const STRIKES = 4;

export class GrammarEngine implements GrammarCompiler {
  /** By tenant and digest, least recently used first. */
  private readonly kept = new Map<string, Kept>();
  private readonly pool: CompilePool;
  private shared: Host | undefined;
  private lastId = 0;
  private readonly matchers = new Set<RemoteMatcher>();
  private closed = false;

  private constructor(private readonly data: SeatData) {
    this.pool = new CompilePool(data, () => this.freeThread());
  }

  /** Threads start with the first constraint. */
  static open(options: GrammarEngineOptions): GrammarEngine {
    // A model may name stop ids beyond its tokenizer; they are never chosen.
    const stopTokenIds = options.stopTokenIds.filter((id) => id < options.selectableIds);
    const vocabulary = shareVocabulary(options);
    return new GrammarEngine({
      vocabulary,
      stopTokenIds,
      limits: { ...GRAMMAR_LIMITS, ...options.limits },
    });
  }

  private get limits(): GrammarLimits {
    return this.data.limits;
  }

  get stats(): GrammarStats {
    const all = [...this.kept.values()];
    return {
      kept: all.length,
      used: all.filter(({ users }) => users > 0).length,
      matchers: this.matchers.size,
      alone: all.filter(({ alone }) => alone).length,
      sharedMessages: this.shared?.messageCount ?? 0,
    };
  }

  async compile(
    spec: ConstraintSpec,
    of: { tenant: string; field: string; signal: AbortSignal },
  ): Promise<Grammar> {
    if (this.closed) throw new ServeError("DRAINING", "constraints: the server is stopping");
    of.signal.throwIfAborted();
    if (this.data.stopTokenIds.length === 0)
      throw ServeError.field(
        of.field,
        "the model has no stop id that can be chosen: a constrained answer could not end",
      );
    const bytes = sourceBytes(spec);
    if (bytes > this.limits.sourceBytes)
      throw ServeError.field(of.field, `${bytes} bytes, at most ${this.limits.sourceBytes}`);
    const kept = this.find(spec, of.tenant);
    kept.users++;
    try {
      await aborted(kept.compiled, of.signal);
      if (kept.condemned !== undefined) throw new Refusal(kept.condemned);
    } catch (error) {
      this.leave(kept);
      if (error instanceof Refusal) throw ServeError.field(of.field, error.message);
      throw error;
    }
    return this.handle(kept, of.field);
  }

  async close(): Promise<void> {
    this.closed = true;
    const error = new ServeError("DRAINING", "constraints: the server is stopping");
    const hosts = new Set([this.shared, ...[...this.kept.values()].map(({ host }) => host)]);
    await Promise.all([this.pool.close(), ...[...hosts].map((host) => host?.stop(error))]);
    this.kept.clear();
  }

  private find(spec: ConstraintSpec, tenant: string): Kept {
    const digest = createHash("sha256").update(JSON.stringify(spec)).digest("hex");
    const key = `${digest} ${tenant}`;
    const known = this.kept.get(key);
    if (known !== undefined) {
      this.kept.delete(key);
      this.kept.set(key, known);
      return known;
    }
    this.makeRoom(tenant);
    const id = ++this.lastId;
    const compiling = this.pool.compile({ grammarId: id, tenant, spec });
    const kept: Kept = {
      id,
      tenant,
      compiled: compiling.then((compiled) => this.settle(kept, compiled)),
      input: undefined,
      users: 0,
      host: undefined,
      alone: false,
      condemned: undefined,
      evicted: false,
      strikes: 0,
    };
    // A refusal is remembered; want of room is not.
    kept.compiled.catch((error: unknown) => {
      if (error instanceof Refusal) kept.condemned = error.message;
      else if (this.kept.get(key) === kept) this.kept.delete(key);
    });
    this.kept.set(key, kept);
    return kept;
  }

  /** Places a compiled grammar. @throws ServeError OVERLOADED when it needs a thread and there is none. */
  private settle(kept: Kept, { input, tookMs, seat }: Compiled): CompilerInput {
    kept.input = input;
    if (kept.evicted || tookMs <= this.limits.lightMs) {
      this.pool.giveBack(seat, kept.id);
      return input;
    }
    if (!this.threadToSpare()) {
      this.pool.giveBack(seat, kept.id);
      throw new ServeError(
        "OVERLOADED",
        `compiling took ${Math.round(tookMs)} ms, and all ${this.limits.threads - 1} threads for such constraints are in use`,
        { retryDelayMs: RETRY_MS, quota: "constraint threads" },
      );
    }
    this.giveThread(kept, seat, true);
    return input;
  }

  /** One thread always stays for compiling. */
  private threadToSpare(): boolean {
    const taken = [...this.kept.values()].filter(({ alone }) => alone).length;
    return taken < this.limits.threads - 1 || this.freeThread();
  }

  /** `compiled`: the thread has the grammar. */
  private giveThread(kept: Kept, seat: ThreadSeat, compiled: boolean): void {
    kept.alone = true;
    kept.host = new Host(this.data, seat, {
      condemned: (_, why) => {
        kept.condemned = why;
        this.endHost(kept);
        this.pool.lost();
      },
    });
    if (kept.input !== undefined) kept.host.keep(kept.id, kept.input, compiled);
  }

  private endHost(kept: Kept): void {
    const { host } = kept;
    kept.host = undefined;
    kept.alone = false;
    void host?.stop(new ServeError("INTERNAL", "constraints: the thread has ended"));
  }

  /** Takes a thread back from a grammar that nobody uses. */
  private freeThread(): boolean {
    for (const [key, kept] of this.kept) {
      if (!kept.alone || kept.users > 0) continue;
      this.kept.delete(key);
      this.endHost(kept);
      queueMicrotask(() => this.pool.lost());
      return true;
    }
    return false;
  }

  private makeRoom(tenant: string): void {
    const own = () => [...this.kept.values()].filter((kept) => kept.tenant === tenant).length;
    while (own() >= this.limits.keptPerTenant) this.evict(tenant);
    while (this.kept.size >= this.limits.kept) this.evict(undefined);
  }

  private evict(tenant: string | undefined): void {
    for (const [key, kept] of this.kept) {
      if (kept.users > 0 || (tenant !== undefined && kept.tenant !== tenant)) continue;
      this.kept.delete(key);
      kept.evicted = true;
      if (kept.alone) {
        this.endHost(kept);
        this.pool.lost();
      } else kept.host?.drop(kept.id);
      return;
    }
    const [limit, whose] =
      tenant === undefined
        ? [this.limits.kept, "of all tenants"]
        : [this.limits.keptPerTenant, "of this tenant"];
    throw new ServeError("OVERLOADED", `${limit} constraints ${whose} are in use, the limit`, {
      retryDelayMs: RETRY_MS,
      quota: "constraints",
    });
  }

  /** One user less; what nobody waits for any more is not compiled. */
  private leave(kept: Kept): void {
    kept.users--;
    if (kept.users > 0 || kept.input !== undefined || kept.condemned !== undefined) return;
    if (!this.pool.cancel(kept.id)) return;
    for (const [key, each] of this.kept) if (each === kept) this.kept.delete(key);
  }

  private handle(kept: Kept, field: string): Grammar {
    let open = true;
    return {
      open: () => this.newMatcher(kept, field),
      close: () => {
        if (open) this.leave(kept);
        open = false;
      },
    };
  }

  private newMatcher(kept: Kept, field: string): Matcher {
    const matcher: RemoteMatcher = new RemoteMatcher(++this.lastId, kept.id, field, {
      accept: (_, tokenId) => kept.host?.accept(matcher, tokenId),
      lookAhead: (_, tokenIds) => kept.host?.lookAhead(matcher, tokenIds),
      close: () => {
        if (!this.matchers.delete(matcher)) return;
        kept.host?.close(matcher);
        this.leave(kept);
      },
    });
    if (kept.condemned !== undefined) matcher.fail(ServeError.field(field, kept.condemned));
    else if (this.closed) matcher.fail(new ServeError("DRAINING", "constraints: stopping"));
    else if (this.matchers.size >= this.limits.matchers)
      matcher.fail(new ServeError("OVERLOADED", `${this.limits.matchers} constrained answers run`));
    else {
      this.matchers.add(matcher);
      kept.users++;
      this.hostOf(kept).add(matcher);
    }
    return matcher;
  }

  private hostOf(kept: Kept): Host {
    if (kept.host !== undefined) return kept.host;
    this.shared ??= new Host(this.data, undefined, {
      condemned: (grammarId, why) => {
        const bad = [...this.kept.values()].find(({ id }) => id === grammarId);
        if (bad !== undefined) bad.condemned = why;
      },
      slow: (grammarId) => this.strike(grammarId),
    });
    kept.host = this.shared;
    if (kept.input !== undefined) kept.host.keep(kept.id, kept.input, false);
    return kept.host;
  }

  /** A grammar that keeps holding up its neighbours moves to a thread of its own, when there is one. */
  private strike(grammarId: number): void {
    const kept = [...this.kept.values()].find(({ id }) => id === grammarId);
    if (kept?.host === undefined || kept.alone || ++kept.strikes < STRIKES) return;
    kept.strikes = 0;
    const seat = this.threadToSpare() ? this.pool.take() : undefined;
    if (seat === undefined) return;
    const before = kept.host;
    const moving = before.release(grammarId);
    before.drop(grammarId);
    this.giveThread(kept, seat, false);
    for (const matcher of moving) this.hostOf(kept).add(matcher);
  }
}

function aborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason as Error);
    signal.addEventListener("abort", stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

function shareVocabulary({ vocabulary, selectableIds }: GrammarEngineOptions): SharedVocabulary {
  const size = vocabulary.slice(0, selectableIds).reduce((sum, { length }) => sum + length, 0);
  const bytes = new Uint8Array(new SharedArrayBuffer(size));
  const ends = new Uint32Array(new SharedArrayBuffer(4 * selectableIds));
  let at = 0;
  for (let id = 0; id < selectableIds; id++) {
    const token = vocabulary[id] ?? new Uint8Array();
    bytes.set(token, at);
    at += token.length;
    ends[id] = at;
  }
  return { bytes, ends };
}
