/** Event streams of requests, the same for every front. */
import { createHash, randomBytes, randomUUID, timingSafeEqual } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import { ServeError } from "@tessera/proto";
import {
  GenerateRequestSchema,
  type Event,
  type GenerateRequest,
  type ResumeRequest,
} from "@tessera/proto/gen/tessera/v1/inference_pb.js";
import { keyOf } from "../engine/admission.js";
import type { Caller } from "../access/caller.js";
import type { Requests } from "../engine/requests.js";
import type { PrepareContext } from "../request/index.js";
import type { RequestTrace, Tracing } from "../trace/trace.js";
import { EventLog, type ByteAccount, type Reader } from "./event-log.js";
import { EventWriter } from "./event-writer.js";

export type { Reader } from "./event-log.js";

export interface StreamLimits {
  /** Events that a client may leave unread. */
  unreadEvents: number;
  /** Of a stream that can be resumed: what is kept of it. */
  keptEvents: number;
  keptBytes: number;
  /** Of all such streams. */
  allKeptBytes: number;
  keptStreams: number;
  /** Readers of one stream at once. */
  readers: number;
  /** How long a stream without a reader goes on, and one that has ended is kept. */
  graceMs: number;
}

export const STREAM_LIMITS: StreamLimits = {
  unreadEvents: 4096,
  keptEvents: 65_536,
  keptBytes: 16 << 20,
  allKeptBytes: 512 << 20,
  keptStreams: 2048,
  readers: 8,
  graceMs: 30_000,
};

/** What runs the requests. */
export interface StreamSource {
  requests: Pick<Requests, "run">;
  context: Pick<PrepareContext, "servedName" | "tokenizer">;
  tracing: Pick<Tracing, "request">;
  metrics: { resumed: { inc(): void } };
}

/** Of `allKeptBytes`, what is left when events were dropped to pass it no more. */
const SHRUNK_SHARE = 7 / 8;

/** A stream that can be resumed. */
interface Kept {
  key: string;
  tenant: string;
  log: EventLog;
  token: string;
  bodyHash: string;
  abort: AbortController;
  trace: RequestTrace;
  grace: NodeJS.Timeout | undefined;
}

/** Of the tenant that has the most first, so that none loses by another; the oldest first in each. */
function heaviestFirst(all: Iterable<Kept>, weightOf: (kept: Kept) => number): Kept[] {
  const list = [...all];
  const weights = new Map<string, number>();
  for (const kept of list)
    weights.set(kept.tenant, (weights.get(kept.tenant) ?? 0) + weightOf(kept));
  const weight = ({ tenant }: Kept) => weights.get(tenant) ?? 0;
  return list.sort((a, b) => weight(b) - weight(a));
}

function sameText(a: string, b: string): boolean {
  const hash = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(hash(a), hash(b));
}

/** Of a body, in whatever order its metadata came. Nothing else in it has an order that says nothing. */
function hashOf(message: GenerateRequest): string {
  const metadata = Object.fromEntries(Object.entries(message.metadata).sort());
  const bytes = toBinary(GenerateRequestSchema, { ...message, metadata });
  return createHash("sha256").update(bytes).digest("hex");
}

function exists(requestId: string, why: string): ServeError {
  return ServeError.field("request_id", `${JSON.stringify(requestId)} ${why}`, "REQUEST_EXISTS");
}

export class Streams {
  private readonly kept = new Map<string, Kept>();
  private readonly account: ByteAccount = { bytes: 0 };

  constructor(
    private readonly serving: StreamSource,
    private readonly limits: StreamLimits = STREAM_LIMITS,
  ) {}

  /** Streams that can be resumed now. */
  get keptCount(): number {
    return this.kept.size;
  }
  /** What they hold, estimated. */
  get keptBytes(): number {
    return this.account.bytes;
  }

  /** Runs a request; resolves after its last event. @throws ServeError instead of events that are missing */
  async generate(message: GenerateRequest, caller: Caller, reader: Reader): Promise<void> {
    const { requestId } = message;
    const known =
      requestId === undefined
        ? undefined
        : this.kept.get(keyOf({ id: requestId, tenant: caller.tenant }));
    if (message.resume !== true) {
      if (known !== undefined)
        throw exists(requestId ?? "", "is kept to be resumed; ask for it with resume");
      return this.plain(message, caller, reader);
    }
    const id = requestId ?? `req-${randomUUID()}`;
    const named = { ...message, requestId: id };
    const bodyHash = hashOf(named);
    if (known !== undefined && known.bodyHash !== bodyHash)
      throw exists(id, "is kept to be resumed and had another body");
    const kept = known ?? this.start(named, { caller, bodyHash, reader });
    return this.follow(kept, reader, 0);
  }

  /** Goes on with a kept stream. @throws ServeError REQUEST_NOT_FOUND, INVALID_ARGUMENT */
  async resume(
    ask: Pick<ResumeRequest, "requestId" | "resumeToken" | "fromIndex">,
    { tenant }: Caller,
    reader: Reader,
  ): Promise<void> {
    const kept = this.kept.get(keyOf({ id: ask.requestId, tenant }));
    if (kept === undefined || !sameText(kept.token, ask.resumeToken))
      throw ServeError.field(
        "request_id",
        `no stream of ${JSON.stringify(ask.requestId)} is kept under this token`,
        "REQUEST_NOT_FOUND",
      );
    this.serving.metrics.resumed.inc();
    const startMs = performance.now();
    try {
      await this.follow(kept, reader, Number(ask.fromIndex));
    } finally {
      kept.trace.phase("resume", { startMs, endMs: performance.now() });
    }
  }

  private traceOf({ carrier = {} }: Reader): RequestTrace {
    return this.serving.tracing.request(carrier, performance.now());
  }

  private async plain(message: GenerateRequest, caller: Caller, reader: Reader): Promise<void> {
    const { unreadEvents: events, keptBytes: bytes } = this.limits;
    const log = new EventLog({ events, bytes }, undefined);
    const abort = new AbortController();
    const leave = () => abort.abort(reader.signal.reason);
    if (reader.signal.aborted) leave();
    else reader.signal.addEventListener("abort", leave, { once: true });
    const run = this.run({ message, caller, log, abort, trace: this.traceOf(reader) });
    try {
      await log.read(reader, 0);
    } finally {
      reader.signal.removeEventListener("abort", leave);
      await run;
    }
  }

  /** Settles when the request has ended and its log is closed. */
  private async run(of: {
    message: GenerateRequest;
    caller: Caller;
    log: EventLog;
    abort: AbortController;
    trace: RequestTrace;
    kept?: Kept;
  }): Promise<void> {
    const { message, caller, log, abort, trace, kept } = of;
    const { servedName, tokenizer } = this.serving.context;
    const take = (event: Event) => {
      log.append(event);
      if (kept !== undefined) this.keepBytes(kept);
      if (log.closed?.error !== undefined) abort.abort(log.closed.error);
    };
    try {
      await this.serving.requests.run(
        { message, caller, signal: abort.signal, trace },
        (prepared) => {
          const of = { prepared, model: servedName, tokenizer, resumeToken: kept?.token };
          return new EventWriter(of, take);
        },
      );
      log.close(undefined);
    } catch (error) {
      log.close(ServeError.from(error));
    }
  }

  private start(
    message: GenerateRequest,
    { caller, bodyHash, reader }: { caller: Caller; bodyHash: string; reader: Reader },
  ): Kept {
    this.makeRoom();
    const { keptEvents: events, keptBytes: bytes } = this.limits;
    const kept: Kept = {
      key: keyOf({ id: message.requestId ?? "", tenant: caller.tenant }),
      tenant: caller.tenant,
      log: new EventLog({ events, bytes }, this.account),
      token: randomBytes(18).toString("base64url"),
      bodyHash,
      abort: new AbortController(),
      trace: this.traceOf(reader),
      grace: undefined,
    };
    this.kept.set(kept.key, kept);
    const { log, abort, trace } = kept;
    void this.run({ message, caller, log, abort, trace, kept }).then(() => {
      // Refused before its first event: nothing can be resumed, and the id is free.
      if (log.end === 0) this.drop(kept);
      else this.waitGrace(kept);
    });
    return kept;
  }

  /** Drops ended streams that nobody reads, in their order, until `enough`. */
  private dropEnded(all: readonly Kept[], enough: () => boolean): void {
    for (const kept of all) {
      if (enough()) return;
      if (kept.log.closed !== undefined && kept.log.readerCount === 0) this.drop(kept);
    }
  }

  /** For one stream more. @throws ServeError OVERLOADED */
  private makeRoom(): void {
    const { keptStreams, allKeptBytes, graceMs } = this.limits;
    const room = () => this.kept.size < keptStreams && this.account.bytes < allKeptBytes;
    if (room()) return;
    this.dropEnded(
      heaviestFirst(this.kept.values(), () => 1),
      room,
    );
    if (!room())
      throw new ServeError("OVERLOADED", `${this.kept.size} streams are kept to be resumed`, {
        quota: "resumable streams",
        retryDelayMs: graceMs,
      });
  }

  /**
   * After an event: ended streams go, then what readers have taken. Unread events end a stream of the tenant that has
   * the most: the one that adds to them, or else its largest.
   */
  private keepBytes(adding: Kept): void {
    const { allKeptBytes } = this.limits;
    if (this.account.bytes <= allKeptBytes) return;
    const target = allKeptBytes * SHRUNK_SHARE;
    const all = heaviestFirst(this.kept.values(), ({ log }) => log.bytes);
    this.dropEnded(all, () => this.account.bytes <= target);
    for (const { log } of all) log.shrink(this.account.bytes - target);
    if (this.account.bytes <= allKeptBytes) return;
    const [heaviest = adding] = heaviestFirst(this.kept.values(), ({ log }) => log.bytes);
    const slow = new ServeError(
      "SLOW_READER",
      `${this.account.bytes} bytes are unread, limit ${allKeptBytes}`,
    );
    if (heaviest.tenant === adding.tenant) return adding.log.close(slow);
    const own = [...this.kept.values()].filter(({ tenant }) => tenant === heaviest.tenant);
    const largest = own.reduce((most, one) => (one.log.bytes > most.log.bytes ? one : most));
    largest.log.close(slow);
    largest.abort.abort(slow);
    this.drop(largest);
  }

  private async follow(kept: Kept, reader: Reader, from: number): Promise<void> {
    const { readers } = this.limits;
    if (kept.log.readerCount >= readers)
      throw new ServeError("OVERLOADED", `${readers} calls read this stream, the limit`, {
        quota: "readers of a stream",
      });
    clearTimeout(kept.grace);
    kept.grace = undefined;
    try {
      await kept.log.read(reader, from);
    } catch (error) {
      const late = reader.signal.aborted && ServeError.from(error).code === "DEADLINE";
      if (late && kept.log.readerCount === 0) kept.abort.abort(error);
      throw error;
    } finally {
      this.waitGrace(kept);
    }
  }

  /** Without a reader a stream has the grace time left. */
  private waitGrace(kept: Kept): void {
    if (kept.log.readerCount > 0) return;
    if (this.kept.get(kept.key) !== kept) return kept.log.release();
    clearTimeout(kept.grace);
    kept.grace = setTimeout(() => this.drop(kept), this.limits.graceMs).unref();
  }

  private drop(kept: Kept): void {
    clearTimeout(kept.grace);
    if (this.kept.get(kept.key) === kept) this.kept.delete(kept.key);
    kept.abort.abort(new ServeError("ABORTED", "nobody came back for the stream"));
    if (kept.log.readerCount === 0) kept.log.release();
  }

  /** Nothing is kept any more; what still runs is aborted. */
  close(): void {
    for (const kept of [...this.kept.values()]) this.drop(kept);
  }
}
