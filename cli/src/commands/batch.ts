/** tessera batch: OpenAI batch lines in and out, in input order. */
import { open, readFile, rename } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { SingleBar } from "cli-progress";
import type { Command } from "commander";
import { TesseraClient, TesseraError, toChatCompletion, toGenerateRequest } from "@tessera/client";
import { addPlacement, whole, type PlacementFlags } from "./options.js";

interface BatchFlags extends PlacementFlags {
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

function parseLine(bytes: Uint8Array, number: number, seen: Set<string>): Line {
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as Record<
      string,
      unknown
    >;
  } catch (error) {
    return { customId: null, error: fault("invalid_json", `line ${number}: ${String(error)}`) };
  }
  const customId = typeof json["custom_id"] === "string" ? json["custom_id"] : null;
  if (customId === null)
    return {
      customId,
      error: fault("invalid_request", `line ${number}: custom_id is missing`, "custom_id"),
    };
  if (seen.has(customId))
    return {
      customId,
      error: fault(
        "duplicate_custom_id",
        `line ${number}: custom_id ${customId} was there before`,
        "custom_id",
      ),
    };
  seen.add(customId);
  if (json["method"] !== "POST")
    return { customId, error: fault("invalid_request", "method must be POST", "method") };
  if (json["url"] !== URL)
    return { customId, error: fault("invalid_request", `url must be ${URL}`, "url") };
  return { customId, body: json["body"] };
}

function* splitLines(bytes: Buffer): Generator<Uint8Array> {
  for (let start = 0; start < bytes.length;) {
    const end = bytes.indexOf(10, start);
    const stop = end < 0 ? bytes.length : end;
    if (bytes.subarray(start, stop).toString("latin1").trim() !== "")
      yield bytes.subarray(start, stop);
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
    const request = await toGenerateRequest(line.body, (path) => readFile(resolve(folder, path)));
    const response = await client.generateOnce(request);
    const wanted = {
      tokenIds: request.returnTokenIds === true,
      logprobs: request.topLogprobs !== undefined,
    };
    const body = toChatCompletion(response, wanted, Math.floor(Date.now() / 1000));
    return { ...head, response: { status_code: 200, request_id: body.id, body }, error: null };
  } catch (error) {
    return { ...head, response: null, error: describe(error) };
  }
}

/** Runs `work` over all lines, `concurrency` at a time; results in order. */
async function runAll<T>(
  lines: Line[],
  concurrency: number,
  work: (line: Line) => Promise<T>,
  done: () => void,
): Promise<T[]> {
  const out = new Array<T>(lines.length);
  let next = 0;
  const lane = async () => {
    for (let i = next++; i < lines.length; i = next++) {
      const line = lines[i];
      if (line !== undefined) out[i] = await work(line);
      done();
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, lines.length) }, lane));
  return out;
}

async function writeLines(path: string, lines: object[]): Promise<void> {
  const partial = `${path}.partial`;
  const file = await open(partial, "w");
  for (const line of lines) await file.write(`${JSON.stringify(line)}\n`);
  await file.close();
  await rename(partial, path);
}

async function runBatch(flags: BatchFlags): Promise<void> {
  if ((flags.server === undefined) === (flags.model === undefined))
    throw new Error("batch: give --model or --server");
  const seen = new Set<string>();
  const lines = [...splitLines(await readFile(flags.input))].map((bytes, i) =>
    parseLine(bytes, i + 1, seen),
  );
  const { startCluster } = await import("../supervisor.js");
  const cluster =
    flags.model === undefined
      ? undefined
      : await startCluster({
          model: flags.model,
          workers: flags.workers,
          threads: flags.threads,
          port: 0,
          flags,
        });
  const client = new TesseraClient({ addresses: [flags.server ?? cluster?.address ?? ""] });
  const bar = new SingleBar({
    format: "{bar} {value}/{total}",
    noTTYOutput: false,
    stream: process.stderr,
  });
  try {
    bar.start(lines.length, 0);
    const folder = dirname(resolve(flags.input));
    const results = await runAll(
      lines,
      flags.concurrency,
      (line) => answer(client, line, folder),
      () => bar.increment(),
    );
    await writeLines(flags.output, results);
  } finally {
    bar.stop();
    client.close();
    await cluster?.stop();
  }
}

export function addBatch(program: Command): void {
  addPlacement(program.command("batch"))
    .description("a file of OpenAI batch lines, answered in order")
    .option("--model <dir>", "starts a cluster for this batch")
    .option("--workers <count>", "1, 2, 4 or 8", whole, 1)
    .option("--threads <count>", "of each worker", whole)
    .option("--server <host:port>", "a running coordinator instead")
    .option("--concurrency <count>", "requests under way", whole, 32)
    .requiredOption("-i, --input <file>", "JSON lines of custom_id, method, url, body")
    .requiredOption("-o, --output <file>", "one line for each, in the same order")
    .addHelpText(
      "after",
      "\nExample:\n  tessera batch --model models/nvlm-d-tiny --workers 2 -i in.jsonl -o out.jsonl\n",
    )
    .action(async (flags: BatchFlags) => runBatch(flags));
}
