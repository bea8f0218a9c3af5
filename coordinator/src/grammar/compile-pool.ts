/**
 * Threads that compile. A compile can take seconds, and a thread does one thing at a time, so no thread with running
 * matchers ever compiles what was not compiled before: a grammar is tried here, alone, under the time limit. What was
 * light is compiled once more beside the running matchers, for which that short wait is known to be short; what was not
 * stays in the thread that compiled it, and that thread is its own until nobody uses it.
 */
import { ServeError } from "@tessera/proto";
import type { ConstraintSpec } from "../request/constraint.js";
import type { FromThread } from "./protocol.js";
import { Refusal } from "./refusal.js";
import type { CompilerInput } from "./source.js";
import { ThreadSeat, type SeatData, type SeatFault } from "./thread-seat.js";

export interface Compiled {
  input: CompilerInput;
  tookMs: number;
  /** The thread that has it; given up, or handed back with `giveBack`. */
  seat: ThreadSeat;
}

export interface CompileJob {
  grammarId: number;
  tenant: string;
  spec: ConstraintSpec;
}

interface Waiting extends CompileJob {
  resolve(compiled: Compiled): void;
  reject(error: Error): void;
}

/** When a refusal for want of room may be tried again. */
const RETRY_MS = 1000;

export class CompilePool {
  private readonly queues = new Map<string, Waiting[]>();
  private idle: ThreadSeat[] = [];
  private seatCount = 0;
  private readonly running = new Map<ThreadSeat, Waiting | undefined>();

  constructor(
    private readonly data: SeatData,
    /** Asked for a thread that is kept for a grammar nobody uses; true when one came free. */
    private readonly starved: () => boolean,
  ) {}

  private get waitingCount(): number {
    return [...this.queues.values()].reduce((sum, queue) => sum + queue.length, 0);
  }

  /** @throws Refusal; ServeError OVERLOADED. */
  compile(job: CompileJob): Promise<Compiled> {
    const { limits } = this.data;
    const queue = this.queues.get(job.tenant) ?? [];
    if (queue.length >= limits.waitingPerTenant || this.waitingCount >= limits.waiting)
      return Promise.reject(
        new ServeError(
          "OVERLOADED",
          `${queue.length} constraints of this tenant wait to be compiled, ${this.waitingCount} of all`,
          { retryDelayMs: RETRY_MS, quota: "constraint compiles" },
        ),
      );
    return new Promise((resolve, reject) => {
      queue.push({ ...job, resolve, reject });
      this.queues.set(job.tenant, queue);
      this.dispatch();
    });
  }

  /** Takes a job out of the queue; false when it is not there any more. */
  cancel(grammarId: number): boolean {
    for (const [tenant, queue] of this.queues) {
      const at = queue.findIndex((job) => job.grammarId === grammarId);
      if (at === -1) continue;
      const [job] = queue.splice(at, 1);
      if (queue.length === 0) this.queues.delete(tenant);
      job?.reject(new ServeError("ABORTED", "constraint: nobody waits for it"));
      return true;
    }
    return false;
  }

  giveBack(seat: ThreadSeat, grammarId: number): void {
    seat.listen(this.eventsOf(seat));
    seat.post({ kind: "drop", grammarId }, this.data.limits.stepMs);
    this.idle.push(seat);
    this.dispatch();
  }

  /** A thread that compiles nothing, to be given away. */
  take(): ThreadSeat | undefined {
    return this.idle.pop() ?? this.fresh();
  }

  /** A thread that was given away has ended. */
  lost(): void {
    this.seatCount--;
    this.dispatch();
  }

  async close(): Promise<void> {
    const error = new ServeError("DRAINING", "constraints: the server is stopping");
    const jobs = [...[...this.queues.values()].flat(), ...this.running.values()];
    this.queues.clear();
    for (const job of jobs) job?.reject(error);
    const seats = [...this.idle, ...this.running.keys()];
    this.idle = [];
    this.running.clear();
    await Promise.all(seats.map((seat) => seat.close()));
  }

  private dispatch(): void {
    while (this.waitingCount > 0) {
      const seat = this.idle.pop() ?? this.fresh();
      if (seat === undefined) return;
      const job = this.next();
      if (job === undefined) return;
      this.running.set(seat, job);
      const { grammarId, spec } = job;
      seat.post({ kind: "compile", grammarId, spec }, this.data.limits.compileMs);
    }
  }

  private fresh(): ThreadSeat | undefined {
    if (this.seatCount >= this.data.limits.threads && !this.starved()) return undefined;
    const waiting = this.idle.pop();
    if (waiting !== undefined) return waiting;
    if (this.seatCount >= this.data.limits.threads) return undefined;
    this.seatCount++;
    const seat = new ThreadSeat(this.data, { reply: () => undefined, fault: () => undefined });
    seat.listen(this.eventsOf(seat));
    return seat;
  }

  /** Tenants take turns. */
  private next(): Waiting | undefined {
    for (const [tenant, queue] of this.queues) {
      const job = queue.shift();
      this.queues.delete(tenant);
      if (queue.length > 0) this.queues.set(tenant, queue);
      if (job !== undefined) return job;
    }
    return undefined;
  }

  private eventsOf(seat: ThreadSeat) {
    return {
      reply: (message: FromThread) => this.reply(seat, message),
      fault: (fault: SeatFault) => this.fault(seat, fault),
    };
  }

  private reply(seat: ThreadSeat, message: FromThread): void {
    const job = this.running.get(seat);
    if (job === undefined || !("grammarId" in message) || message.grammarId !== job.grammarId)
      return;
    this.running.delete(seat);
    if (message.kind === "compiled") {
      job.resolve({ input: message.input, tookMs: message.tookMs, seat });
      return;
    }
    if (message.kind === "refused") {
      // The path is in the message already: the thread has made it.
      const { path } = message;
      const text = path === undefined ? message.message : message.message.slice(path.length + 2);
      job.reject(new Refusal(text, path));
    }
    this.idle.push(seat);
    this.dispatch();
  }

  private fault(seat: ThreadSeat, fault: SeatFault): void {
    const job = this.running.get(seat);
    this.running.delete(seat);
    this.idle = this.idle.filter((each) => each !== seat);
    this.seatCount--;
    job?.reject(
      new Refusal(
        fault.kind === "slow"
          ? `took longer than ${this.data.limits.compileMs} ms to compile, the limit`
          : `cannot be compiled: ${fault.message}`,
      ),
    );
    this.dispatch();
  }
}
