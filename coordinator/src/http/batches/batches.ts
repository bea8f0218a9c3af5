/** Batches of all tenants: made, looked up, ended, and taken up again after a start. */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { ServeError } from "@tessera/proto";
import type { Caller } from "../../access/caller.js";
import { newId, tenantFolder, type DataFolder } from "../storage/data-folder.js";
import { readDurable } from "../storage/durable.js";
import { notFound } from "../storage/file-store.js";
import { BatchRun, INPUT, STATE, type RunOptions } from "./batch-run.js";
import { ended, enter, type BatchRecord, type Endpoint } from "./record.js";
import { Slots } from "./slots.js";

export interface BatchLimits {
  /** Of a tenant; the oldest that ended are forgotten first. */
  keptBatches: number;
  /** Of a tenant, not ended. */
  openBatches: number;
  /** Of a tenant, computed at once; the others wait. */
  runningBatches: number;
}

export const BATCH_LIMITS: BatchLimits = {
  keptBatches: 1000,
  openBatches: 100,
  runningBatches: 4,
};

const WINDOW_MS = 24 * 3_600_000;

export interface AskedBatch {
  endpoint: Endpoint;
  inputFileId: string;
  metadata: Record<string, string> | null;
}

interface Tenant {
  runs: Map<string, BatchRun>;
  turns: Slots;
}

export class Batches {
  /** By the tenant's folder. */
  private readonly tenants = new Map<string, Tenant>();
  private readonly running = new Set<Promise<void>>();
  /** Under way to be made, by tenant: they have a place already. */
  private readonly making = new Map<string, number>();
  private closed = false;

  private constructor(
    private readonly data: DataFolder,
    private readonly options: RunOptions,
    private readonly limits: BatchLimits,
  ) {}

  /** Goes on with what an earlier server left. */
  static async open(
    data: DataFolder,
    options: RunOptions,
    limits: Partial<BatchLimits> = {},
  ): Promise<Batches> {
    const batches = new Batches(data, options, { ...BATCH_LIMITS, ...limits });
    for (const name of await data.tenants()) await batches.load(name);
    return batches;
  }

  private async load(name: string): Promise<void> {
    const all = await this.data.folder(name, "batches");
    for (const id of await readdir(all)) {
      const folder = join(all, id);
      const record = await readDurable<BatchRecord>(join(folder, STATE));
      if (record === undefined) {
        await rm(folder, { recursive: true });
        continue;
      }
      const run = new BatchRun(folder, record, this.options);
      // Its end may have been told and not its pieces removed.
      if (ended(record)) await run.clear();
      this.add(name, run);
    }
  }

  private add(name: string, run: BatchRun): void {
    const tenant = this.tenants.get(name) ?? {
      runs: new Map<string, BatchRun>(),
      turns: new Slots(this.limits.runningBatches),
    };
    this.tenants.set(name, tenant);
    tenant.runs.set(run.record.id, run);
    if (ended(run.record) || this.closed) return;
    const going = run.run(tenant.turns).finally(() => this.running.delete(going));
    this.running.add(going);
  }

  private runs(tenant: string): BatchRun[] {
    return [...(this.tenants.get(tenantFolder(tenant))?.runs.values() ?? [])];
  }

  all(tenant: string): BatchRecord[] {
    return this.runs(tenant).map(({ record }) => record);
  }

  /** @throws ServeError REQUEST_NOT_FOUND, of another tenant's as well */
  private find(tenant: string, id: string): BatchRun {
    const run = this.tenants.get(tenantFolder(tenant))?.runs.get(id);
    if (run === undefined) throw notFound("batch", id);
    return run;
  }

  get(tenant: string, id: string): BatchRecord {
    return this.find(tenant, id).record;
  }

  /** Takes a place; it is given back when the batch is there or cannot be made. @throws ServeError OVERLOADED */
  private enter(tenant: string): () => void {
    const { openBatches } = this.limits;
    const making = this.making.get(tenant) ?? 0;
    const open = making + this.runs(tenant).filter(({ record }) => !ended(record)).length;
    if (open >= openBatches)
      throw new ServeError("OVERLOADED", `${open} batches have not ended, the limit`, {
        quota: "batches",
      });
    this.making.set(tenant, making + 1);
    return () => {
      const left = (this.making.get(tenant) ?? 1) - 1;
      if (left === 0) this.making.delete(tenant);
      else this.making.set(tenant, left);
    };
  }

  /** Forgets the oldest that ended, for one more. */
  private async makeRoom(tenant: string): Promise<void> {
    const runs = this.runs(tenant);
    const over = runs.length + 1 - this.limits.keptBatches;
    const old = runs
      .filter(({ record }) => ended(record))
      .sort((a, b) => a.record.createdMs - b.record.createdMs)
      .slice(0, Math.max(0, over));
    const name = tenantFolder(tenant);
    for (const { record } of old) {
      this.tenants.get(name)?.runs.delete(record.id);
      await rm(await this.folderOf(name, record.id), { recursive: true, force: true });
    }
  }

  private async folderOf(name: string, id: string): Promise<string> {
    return join(await this.data.folder(name, "batches"), id);
  }

  /** On the caller's account, whatever becomes of the key. @throws ServeError */
  async create(caller: Caller, asked: AskedBatch): Promise<BatchRecord> {
    const leave = this.enter(caller.tenant);
    try {
      return await this.make(caller, asked);
    } finally {
      leave();
    }
  }

  private async make({ tenant, policy }: Caller, asked: AskedBatch): Promise<BatchRecord> {
    const { files } = this.options;
    const file = files.get(tenant, asked.inputFileId, "input_file_id");
    if (file.purpose !== "batch")
      throw ServeError.field("input_file_id", `is of purpose ${file.purpose}, must be batch`);
    // Answers are kept beyond a tenant's limits: what would add to them is not begun.
    files.checkRoom(tenant, 0);
    await this.makeRoom(tenant);
    const createdMs = Date.now();
    const record: BatchRecord = {
      ...asked,
      id: newId("batch_"),
      tenant,
      policy,
      createdMs,
      expiresMs: createdMs + WINDOW_MS,
      status: "validating",
      enteredMs: { validating: createdMs },
      faults: [],
      counts: { total: 0, completed: 0, failed: 0 },
    };
    const name = tenantFolder(tenant);
    const folder = await this.folderOf(name, record.id);
    await mkdir(folder, { mode: 0o700 });
    const run = new BatchRun(folder, record, this.options);
    try {
      await files.linkTo(tenant, file, join(folder, INPUT));
      await run.save();
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
    this.add(name, run);
    return record;
  }

  /** @throws ServeError REQUEST_NOT_FOUND; INVALID_ARGUMENT for one that has ended otherwise */
  async cancel(tenant: string, id: string): Promise<BatchRecord> {
    const run = this.find(tenant, id);
    const { record } = run;
    const { status } = record;
    if (status === "cancelling" || status === "cancelled") return record;
    if (status !== "validating" && status !== "in_progress")
      throw ServeError.field("batch", `is ${status}, cannot be cancelled any more`);
    enter(record, "cancelling", Date.now());
    run.stop("cancelled");
    await run.save();
    return record;
  }

  /** What has not ended goes on at the next start. */
  async close(): Promise<void> {
    this.closed = true;
    for (const { runs } of this.tenants.values())
      for (const run of runs.values()) run.stop("closing");
    await Promise.all(this.running);
  }
}
