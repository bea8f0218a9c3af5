/** One batch's way from its file to its answers. All that it knows is on disk: it goes on where it was left. */
import { setMaxListeners } from "node:events";
import { createReadStream } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { ServeError } from "@tessera/proto";
import { newId } from "../storage/data-folder.js";
import { PART, writeDurably } from "../storage/durable.js";
import type { FileStore } from "../storage/file-store.js";
import { linesOf } from "../storage/lines.js";
import type { LineAnswer } from "./answer-line.js";
import { InputCheck, readLine, type Entry } from "./input.js";
import { ended, enter, type BatchRecord } from "./record.js";
import { ResultLog, type Kind } from "./result-log.js";
import { Slots } from "./slots.js";

/** Of the stop's signal, a line. */
const SIGNAL_USERS = 8;
export const INPUT = "input.jsonl";
export const STATE = "state.json";

export interface RunOptions {
  files: FileStore;
  /** Of one batch: lines read and not answered. */
  concurrency: number;
  maxLineBytes: number;
  answer(record: BatchRecord, entry: Entry, signal: AbortSignal): Promise<LineAnswer>;
  failed(record: BatchRecord, error: unknown): void;
}

type Stop = "closing" | "cancelled" | "expired";

/** Of lines that were not executed. */
const LEFT = {
  cancelled: ["batch_cancelled", "The batch was cancelled before this line was executed."],
  expired: ["batch_expired", "The batch expired before this line was executed."],
} as const;

export class BatchRun {
  private readonly abort = new AbortController();
  private stopped: Stop | undefined;
  private saving: Promise<void> = Promise.resolve();

  constructor(
    private readonly folder: string,
    readonly record: BatchRecord,
    private readonly options: RunOptions,
  ) {
    setMaxListeners(SIGNAL_USERS * (options.concurrency + 1), this.abort.signal);
  }

  /** What is computed is left within a step. */
  stop(why: Stop): void {
    this.stopped ??= why;
    this.abort.abort(new ServeError("ABORTED", `the batch is ${why}`));
  }

  /** One after the other; the last one is what stays. */
  save(): Promise<void> {
    const text = JSON.stringify(this.record);
    const saved = this.saving.then(() => writeDurably(this.folder, STATE, text));
    this.saving = saved.catch(() => undefined);
    return saved;
  }

  private async enter(status: BatchRecord["status"]): Promise<void> {
    enter(this.record, status, Date.now());
    await this.save();
  }

  /** Waits for its turn, and settles at the batch's end or when it is left for the next start. */
  async run(turns: Slots): Promise<void> {
    const expires = setTimeout(
      () => this.stop("expired"),
      Math.max(0, this.record.expiresMs - Date.now()),
    );
    if (this.record.status === "cancelling") this.stop("cancelled");
    try {
      const leave = await turns.take(this.abort.signal).catch(() => undefined);
      try {
        await this.go();
      } finally {
        leave?.();
      }
    } catch (error) {
      await this.fail(error);
    } finally {
      clearTimeout(expires);
    }
  }

  private async go(): Promise<void> {
    if (this.record.status === "validating" && this.stopped === undefined) await this.validate();
    if (ended(this.record) || this.stopped === "closing") return;
    const log = await ResultLog.open(this.folder);
    try {
      const known = this.known(log);
      if (this.stopped === undefined) await this.compute(log, known);
      // Asked again: it may have been stopped meanwhile.
      await this.finish(log, known, this.stopped);
    } finally {
      await log.close();
    }
    if (ended(this.record)) await this.clear();
  }

  private async *lines() {
    const { maxLineBytes: maxBytes } = this.options;
    const source = createReadStream(join(this.folder, INPUT)) as AsyncIterable<Buffer>;
    const { endpoint } = this.record;
    for await (const line of linesOf(source, maxBytes))
      yield readLine(line, { endpoint, maxBytes });
  }

  private async validate(): Promise<void> {
    const check = new InputCheck();
    for await (const line of this.lines()) {
      check.add(line);
      if (check.over || this.stopped !== undefined) break;
    }
    if (this.stopped !== undefined) return;
    check.finish();
    const { record } = this;
    record.faults = check.faults;
    if (check.faults.length === 0) {
      record.counts.total = check.total;
      return this.enter("in_progress");
    }
    await this.enter("failed");
    await this.clear();
  }

  /** Ids of lines that are answered, counted anew. */
  private known({ answered }: ResultLog): Set<string> {
    const { counts } = this.record;
    const executed = answered.filter(({ status }) => status !== undefined);
    counts.completed = executed.filter(({ status }) => status === 200).length;
    counts.failed = executed.length - counts.completed;
    return new Set(answered.map(({ customId }) => customId));
  }

  private async compute(log: ResultLog, known: Set<string>): Promise<void> {
    const { signal } = this.abort;
    const slots = new Slots(this.options.concurrency);
    const running = new Set<Promise<void>>();
    let broken: unknown;
    try {
      for await (const line of this.lines()) {
        if (!("entry" in line) || known.has(line.entry.customId)) continue;
        const giveBack = await slots.take(signal);
        if (broken !== undefined) break;
        const work = this.line(log, known, line.entry)
          .catch((error: unknown) => (broken ??= signal.aborted ? undefined : error))
          .finally(giveBack)
          .then(() => void running.delete(work));
        running.add(work);
      }
    } catch (error) {
      if (!signal.aborted) broken ??= error;
    } finally {
      await Promise.all(running);
    }
    if (broken !== undefined) throw broken as Error;
  }

  private async line(log: ResultLog, known: Set<string>, entry: Entry): Promise<void> {
    const { record, options, abort } = this;
    const { status, body } = await options.answer(record, entry, abort.signal);
    const response = { status_code: status, request_id: requestIdOf(record, entry), body };
    const kind: Kind = status === 200 ? "output" : "error";
    await log.append(kind, { ...headOf(record, entry), response, error: null });
    known.add(entry.customId);
    record.counts[status === 200 ? "completed" : "failed"]++;
  }

  private async finish(log: ResultLog, known: Set<string>, stop: Stop | undefined): Promise<void> {
    if (stop === "closing") return;
    if (stop === undefined) await this.enter("finalizing");
    else await this.leave(log, known, stop);
    await this.publish(log);
    await this.enter(stop ?? "completed");
  }

  /** Every line that was not executed is told. */
  private async leave(log: ResultLog, known: Set<string>, stop: keyof typeof LEFT): Promise<void> {
    const [code, message] = LEFT[stop];
    for await (const line of this.lines()) {
      if (!("entry" in line) || known.has(line.entry.customId)) continue;
      known.add(line.entry.customId);
      const head = headOf(this.record, line.entry);
      await log.append("error", { ...head, response: null, error: { code, message } });
    }
  }

  /** The files' ids are kept before the files are: a second attempt makes no second ones. */
  private async publish(log: ResultLog): Promise<void> {
    const { record } = this;
    const { id, tenant } = record;
    const [output, error] = [await log.seal("output"), await log.seal("error")];
    if (output) record.outputFileId ??= newId("file-");
    if (error) record.errorFileId ??= newId("file-");
    await this.save();
    const adopt = async (kind: Kind, fileId: string | undefined) => {
      if (fileId === undefined) return;
      const of = { id: fileId, filename: `${id}_${kind}.jsonl` };
      await this.options.files.adopt(tenant, log.pathOf(kind), of);
    };
    await adopt("output", record.outputFileId);
    await adopt("error", record.errorFileId);
  }

  /** What is left of an ended batch is its record. */
  async clear(): Promise<void> {
    await ResultLog.remove(this.folder);
    for (const name of [INPUT, STATE + PART]) await rm(join(this.folder, name), { force: true });
  }

  /** The disk does not do what it must. */
  private async fail(error: unknown): Promise<void> {
    const { record, options } = this;
    options.failed(record, error);
    const message = "the server could not read or write the batch's files";
    record.faults = [{ code: "internal", message, param: null, line: null }];
    try {
      await this.enter("failed");
      await this.clear();
    } catch (why) {
      options.failed(record, why);
    }
  }
}

export function requestIdOf({ id }: BatchRecord, { line }: Entry): string {
  return `${id}-${line}`;
}

function headOf(record: BatchRecord, { line, customId }: Entry) {
  return { id: `${record.id.replace(/^batch_/, "batch_req_")}_${line}`, custom_id: customId };
}
