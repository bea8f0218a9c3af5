/**
 * Plain texts → ids: short ones at once, long ones in a thread, so that no text holds up the steps of other requests.
 * One text is encoded at a time; tenants take turns.
 */
import { Worker } from "node:worker_threads";
import { ServeError } from "@tessera/proto";
import type { Bpe, EncodedText, PlainText } from "./bpe.js";

/** Characters that are encoded at once: some 10 ms whatever they are. */
export const SHORT_TEXT = 16 * 1024;
/** Requests whose texts wait. */
const MAX_WAITING = 1024;
const MAX_TENANT_WAITING = 128;
/** From the moment its turn comes. A text takes a tenth of that on an idle machine. */
const DEADLINE_MS = 10_000;
const DEADLINE_MS_PER_MIB = 5_000;
const RETRY_MS = 1000;
/** JavaScript heap of the thread. */
const HEAP_MB = 512;

export interface TextsOf {
  tenant: string;
  /** The request's, for refusals. */
  field: string;
  signal: AbortSignal;
}

/** What request preparation needs of it. */
export interface TextEncoder {
  /** @throws ServeError OVERLOADED, INVALID_ARGUMENT at the deadline; the signal's reason */
  encode(texts: PlainText[], of: TextsOf): Promise<EncodedText[]>;
}

export interface FromTextThread {
  encoded: EncodedText[];
}

interface Job extends TextsOf {
  texts: PlainText[];
  length: number;
  resolve(encoded: EncodedText[]): void;
  reject(error: Error): void;
}

function deadlineMsOf(characters: number): number {
  return Math.round(DEADLINE_MS + (DEADLINE_MS_PER_MIB * characters) / 2 ** 20);
}

export class TextQueue implements TextEncoder {
  /** Never empty ones; the tenant whose turn is next is first. */
  private readonly waiting = new Map<string, Job[]>();
  private waitingCount = 0;
  private running: Job | undefined;
  private thread: Worker | undefined;
  private timer: NodeJS.Timeout | undefined;
  private closed = false;

  constructor(
    private readonly bpe: Bpe,
    private readonly deadlineMs = deadlineMsOf,
  ) {}

  async encode(texts: PlainText[], of: TextsOf): Promise<EncodedText[]> {
    const length = texts.reduce((sum, { text }) => sum + text.length, 0);
    if (length <= SHORT_TEXT) return texts.map((plain) => this.bpe.encodeMarked(plain));
    return this.enter(texts, length, of);
  }

  private async enter(texts: PlainText[], length: number, of: TextsOf): Promise<EncodedText[]> {
    of.signal.throwIfAborted();
    if (this.closed) throw new ServeError("DRAINING", `${of.field}: the server is stopping`);
    const own = this.waiting.get(of.tenant) ?? [];
    if (own.length >= MAX_TENANT_WAITING || this.waitingCount >= MAX_WAITING)
      throw new ServeError(
        "OVERLOADED",
        `${own.length} long texts of this tenant wait to be tokenised, limit ${MAX_TENANT_WAITING}; ` +
          `${this.waitingCount} of all, limit ${MAX_WAITING}`,
        { quota: "long texts", retryDelayMs: RETRY_MS },
      );
    let leave: () => void = () => undefined;
    try {
      return await new Promise((resolve, reject) => {
        const job: Job = { ...of, texts, length, resolve, reject };
        leave = () => this.leave(job);
        of.signal.addEventListener("abort", leave, { once: true });
        own.push(job);
        this.waiting.set(of.tenant, own);
        this.waitingCount++;
        this.next();
      });
    } finally {
      of.signal.removeEventListener("abort", leave);
    }
  }

  /** Nobody waits for it any more. A thread that is at it is given up: the next starts in milliseconds. */
  private leave(job: Job): void {
    job.reject(job.signal.reason as Error);
    if (this.running === job) return this.giveUp();
    const own = this.waiting.get(job.tenant) ?? [];
    const at = own.indexOf(job);
    if (at === -1) return;
    own.splice(at, 1);
    this.waitingCount--;
    if (own.length === 0) this.waiting.delete(job.tenant);
  }

  /** Takes the next tenant's first job; the tenant goes to the end. */
  private next(): void {
    const [turn] = this.waiting;
    if (this.running !== undefined || turn === undefined) return;
    const [tenant, own] = turn;
    const job = own.shift();
    this.waitingCount--;
    this.waiting.delete(tenant);
    if (own.length > 0) this.waiting.set(tenant, own);
    this.running = job;
    if (job !== undefined) this.start(job);
  }

  private start(job: Job): void {
    const deadlineMs = this.deadlineMs(job.length);
    this.timer = setTimeout(() => {
      job.reject(
        ServeError.field(
          job.field,
          `have ${job.length} characters that were not tokenised within ${deadlineMs} ms`,
        ),
      );
      this.giveUp();
    }, deadlineMs);
    this.thread ??= this.open();
    this.thread.postMessage(job.texts);
  }

  private open(): Worker {
    const thread = new Worker(new URL("./text-thread.js", import.meta.url), {
      workerData: this.bpe.tables,
      stderr: true,
      stdout: true,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
    });
    thread.unref();
    const broken = (why: string) => {
      if (this.thread !== thread) return;
      this.running?.reject(new ServeError("INTERNAL", `the tokenizer's thread has ended: ${why}`));
      this.giveUp();
    };
    thread.on("message", ({ encoded }: FromTextThread) => {
      if (this.thread === thread) this.done(encoded);
    });
    thread.on("error", (error) => broken(error.message));
    thread.on("exit", (code) => broken(`code ${code}`));
    return thread;
  }

  private done(encoded: EncodedText[]): void {
    clearTimeout(this.timer);
    this.running?.resolve(encoded);
    this.running = undefined;
    this.next();
  }

  /** Of the running job, whose promise is settled. */
  private giveUp(): void {
    clearTimeout(this.timer);
    const { thread } = this;
    this.thread = undefined;
    this.running = undefined;
    void thread?.terminate();
    this.next();
  }

  async close(): Promise<void> {
    this.closed = true;
    clearTimeout(this.timer);
    const jobs = [...(this.running === undefined ? [] : [this.running])];
    for (const own of this.waiting.values()) jobs.push(...own);
    this.waiting.clear();
    this.waitingCount = 0;
    this.running = undefined;
    for (const job of jobs)
      job.reject(new ServeError("DRAINING", `${job.field}: the server is stopping`));
    const { thread } = this;
    this.thread = undefined;
    await thread?.terminate();
  }
}
