/** tessera batch: OpenAI batch lines in and out, in input order. */
import { open, readFile, rename, rm, type FileHandle } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { SingleBar } from "cli-progress";
import type { Command } from "commander";
import {
  type ClientOptions,
  TesseraClient,
  TesseraError,
  toChatCompletion,
  toGenerateRequest,
  wantedOf,
} from "@tessera/client";
import { checkCluster } from "./check-cluster.js";
import { addClientSecurity, clientSecurity, type ClientSecurityFlags } from "./security-flags.js";
import { addPlacement, from1, refuseBesideServer, whole, type PlacementFlags } from "./options.js";

interface BatchFlags extends PlacementFlags, ClientSecurityFlags {
  model?: string;
  workers: number;
  threads?: number;
  server?: string;
  input: string;
  output: string;
  concurrency: number;
}

interface Line {
  customId: string | null;
  body?: unknown;
  error?: { code: string; message: string; param: string | null };
}

const URL = "/v1/chat/completions";

function fault(code: string, message: string, param: string | null = null) {
  return { code, message, param };
}

function parseJson(bytes: Uint8Array): Record<string, unknown> {
  const json: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw new TypeError("it is no JSON object");
  return json as Record<string, unknown>;
}

/** `number` is counted from 1, empty lines included. */
function parseLine({ bytes, number }: RawLine, seen: Set<string>): Line {
  const wrong = (customId: string | null, code: string, message: string, param?: string): Line => ({
    customId,
    error: fault(code, `line ${number}: ${message}`, param),
  });
  let json: Record<string, unknown>;
  try {
    json = parseJson(bytes);
  } catch (error) {
    return wrong(null, "invalid_json", error instanceof Error ? error.message : String(error));
  }
  const customId = json["custom_id"];
  if (typeof customId !== "string")
    return wrong(null, "invalid_request", "custom_id must be a text", "custom_id");
  if (seen.has(customId)) {
    const message = `custom_id ${JSON.stringify(customId)} was there before`;
    return wrong(customId, "duplicate_custom_id", message, "custom_id");
  }
  seen.add(customId);
  if (json["method"] !== "POST")
    return wrong(customId, "invalid_request", "method must be POST", "method");
  if (json["url"] !== URL) return wrong(customId, "invalid_request", `url must be ${URL}`, "url");
  return { customId, body: json["body"] };
}

interface RawLine {
  bytes: Uint8Array;
  number: number;
}

/** Lines that are not blank. */
function* splitLines(bytes: Buffer): Generator<RawLine> {
  for (let start = 0, number = 1; start < bytes.length; number++) {
    const end = bytes.indexOf(10, start);
    const stop = end < 0 ? bytes.length : end;
    const line = bytes.subarray(start, stop);
    if (line.toString("latin1").trim() !== "") yield { bytes: line, number };
    start = stop + 1;
  }
}

function describe(error: unknown) {
  if (error instanceof TesseraError)
    return fault(error.code.toLowerCase(), error.message, error.violations[0]?.field ?? null);
  const known = error as { code?: string; message?: string; violations?: { field: string }[] };
  return fault(
    (known.code ?? "error").toLowerCase(),
    known.message ?? String(error),
    known.violations?.[0]?.field ?? null,
  );
}

async function answer(client: TesseraClient, line: Line, folder: string) {
  const head = { id: `batch_req_${line.customId ?? ""}`, custom_id: line.customId };
  if (line.error !== undefined) return { ...head, response: null, error: line.error };
  try {
    const request = await toGenerateRequest(line.body, {
      readFile: (path) => readFile(resolve(folder, path)),
    });
    const response = await client.generateOnce(request);
    const body = toChatCompletion(response, wantedOf(request), Math.floor(Date.now() / 1000));
    return { ...head, response: { status_code: 200, request_id: body.id, body }, error: null };
  } catch (error) {
    return { ...head, response: null, error: describe(error) };
  }
}

/** Runs `work` over all lines, `concurrency` at a time, until the signal; `done` is told of each, in any order. */
async function runAll<T>(
  lines: Line[],
  options: { concurrency: number; signal: AbortSignal },
  work: (line: Line) => Promise<T>,
  done: (index: number, result: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  const lane = async () => {
    for (let i = next++; i < lines.length && !options.signal.aborted; i = next++) {
      const line = lines[i];
      if (line === undefined) continue;
      const result = await work(line);
      if (!options.signal.aborted) await done(i, result);
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.concurrency, lines.length) }, lane));
}

/** What the answers are written to, in the order of the lines, as far as they are there without a gap. */
class Output {
  private readonly waiting = new Map<number, object>();
  private writing: Promise<void> = Promise.resolve();
  written = 0;

  private constructor(
    private readonly path: string,
    readonly partial: string,
    private readonly file: FileHandle,
  ) {}

  /** Before any work is done, so that a place that cannot be written costs none. */
  static async open(path: string): Promise<Output> {
    const partial = `${path}.partial`;
    const file = await open(partial, "w").catch((cause: unknown) => {
      throw new Error(`batch: output ${path} cannot be written: ${reason(cause)}`, { cause });
    });
    return new Output(path, partial, file);
  }
  /** One write at a time. */
  add(index: number, line: object): Promise<void> {
    this.waiting.set(index, line);
    this.writing = this.writing.then(async () => {
      for (let next = this.take(); next !== undefined; next = this.take())
        await this.file.write(`${JSON.stringify(next)}\n`);
    });
    return this.writing;
  }
  private take(): object | undefined {
    const next = this.waiting.get(this.written);
    if (next !== undefined) this.waiting.delete(this.written++);
    return next;
  }
  async finish(): Promise<void> {
    await this.close();
    await rename(this.partial, this.path);
  }
  async close(): Promise<void> {
    await this.writing;
    await this.file.close();
  }
  async discard(): Promise<void> {
    await this.file.close();
    await rm(this.partial);
  }
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function readLines(path: string): Promise<Line[]> {
  const seen = new Set<string>();
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new Error(`batch: input ${path} cannot be read: ${reason(cause)}`, { cause });
  });
  return [...splitLines(bytes)].map((line) => parseLine(line, seen));
}

async function startOwn(flags: BatchFlags) {
  const { model, workers, threads } = flags;
  if (model === undefined) return undefined;
  await checkCluster(model, workers, flags);
  const { startCluster } = await import("../supervisor.js");
  return startCluster({ model, workers, threads, port: 0, flags });
}

/** The bar is on stderr, and only where that is a terminal. */
async function answerAll(
  lines: Line[],
  to: Pick<ClientOptions, "apiKey" | "tls"> & {
    address: string;
    output: Output;
    signal: AbortSignal;
  },
  flags: BatchFlags,
): Promise<void> {
  const { address, output, signal, ...security } = to;
  const client = new TesseraClient({ addresses: [address], ...security });
  const format = "{bar} {value}/{total}";
  const bar = new SingleBar({ format, noTTYOutput: false, stream: process.stderr });
  try {
    bar.start(lines.length, 0);
    const folder = dirname(resolve(flags.input));
    const work = (line: Line) => answer(client, line, folder);
    const { concurrency } = flags;
    await runAll(lines, { concurrency, signal }, work, (index, result) => {
      bar.increment();
      return output.add(index, result);
    });
  } finally {
    bar.stop();
    client.close();
  }
}

const INTERRUPTED = 130;

async function runBatch(flags: BatchFlags): Promise<void> {
  if ((flags.server === undefined) === (flags.model === undefined))
    throw new Error("batch: give --model or --server, and not both");
  const security = clientSecurity(flags);
  const lines = await readLines(flags.input);
  const output = await Output.open(flags.output);
  const interrupt = new AbortController();
  process.once("SIGINT", () => interrupt.abort());
  const { signal } = interrupt;
  try {
    const cluster = await startOwn(flags);
    const address = flags.server ?? cluster?.address ?? "";
    const all = answerAll(lines, { address, output, signal, ...security }, flags);
    const stopped = new Promise((end) => signal.addEventListener("abort", end, { once: true }));
    await Promise.race([all, stopped]).finally(() => cluster?.stop());
  } catch (error) {
    await output.discard().catch(() => undefined);
    throw error;
  }
  if (!signal.aborted) return output.finish();
  await output.close();
  process.stderr.write(
    `tessera: interrupted, the first ${output.written} of ${lines.length} answers are in ${output.partial}\n`,
  );
  process.exit(INTERRUPTED);
}

export function addBatch(program: Command): void {
  const command = addClientSecurity(addPlacement(program.command("batch")));
  // Workers that see each other end are no news here.
  command.options.find(({ long }) => long === "--log-level")?.default("error");
  command.setOptionValue("logLevel", "error");
  command
    .description("a file of OpenAI batch lines, answered in order")
    .option("--model <dir>", "starts a cluster for this batch")
    .option("--workers <count>", "1, 2, 4 or 8", whole, 1)
    .option("--threads <count>", "of each worker", whole)
    .option("--server <host:port>", "a running coordinator instead")
    .option("--concurrency <count>", "requests under way, 1 to 1024", from1(1024), 32)
    .requiredOption("-i, --input <file>", "JSON lines of custom_id, method, url, body")
    .requiredOption("-o, --output <file>", "one line for each, in the same order")
    .addHelpText(
      "after",
      "\nExample:\n  tessera batch --model models/nvlm-d-tiny --workers 2 -i in.jsonl -o out.jsonl\n",
    )
    .action(async (flags: BatchFlags, of: Command) => {
      refuseBesideServer(flags, of);
      await runBatch(flags);
    });
}
