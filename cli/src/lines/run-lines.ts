/** Lines in, lines out, in order: with a cluster of the command's own or a running one. */
import { SingleBar } from "cli-progress";
import type { Command } from "commander";
import { TesseraClient, type ClientOptions } from "@tessera/client";
import { checkCluster } from "../commands/check-cluster.js";
import { addPlacement, from1, whole, type PlacementFlags } from "../commands/options.js";
import {
  addClientSecurity,
  clientSecurity,
  type ClientSecurityFlags,
} from "../commands/security-flags.js";
import { Output } from "./output.js";

export interface LinesFlags extends PlacementFlags, ClientSecurityFlags {
  model?: string;
  workers: number;
  threads?: number;
  server?: string;
  input: string;
  output: string;
  concurrency: number;
}

/** One line → what is written of it. */
export type Work<L> = (line: L) => Promise<object>;

/** `open` makes the work when the server is there. */
export interface LinesCommand<L> {
  name: string;
  lines: L[];
  open: (client: TesseraClient) => Promise<Work<L>>;
}

/** Runs `work` over all lines, `concurrency` at a time, until the signal; `done` is told of each, in any order. */
async function runAll<L>(
  lines: L[],
  options: { concurrency: number; signal: AbortSignal },
  work: Work<L>,
  done: (index: number, result: object) => Promise<void>,
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

async function startOwn(flags: LinesFlags) {
  const { model, workers, threads } = flags;
  if (model === undefined) return undefined;
  await checkCluster(model, workers, flags);
  const { startCluster } = await import("../supervisor.js");
  return startCluster({ model, workers, threads, port: 0, flags });
}

/** The bar is on stderr, and only where that is a terminal. */
async function workAll<L>(
  { lines, open }: LinesCommand<L>,
  to: Pick<ClientOptions, "apiKey" | "tls"> & {
    address: string;
    output: Output;
    signal: AbortSignal;
  },
  concurrency: number,
): Promise<void> {
  const { address, output, signal, ...security } = to;
  const client = new TesseraClient({ addresses: [address], ...security });
  const format = "{bar} {value}/{total}";
  const bar = new SingleBar({ format, noTTYOutput: false, stream: process.stderr });
  try {
    const work = await open(client);
    bar.start(lines.length, 0);
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

/** @throws Error naming command and flag where there is neither a model nor a server, or both */
export function checkSource(name: string, flags: { server?: string; model?: string }): void {
  if ((flags.server === undefined) === (flags.model === undefined))
    throw new Error(`${name}: give --model or --server, and not both`);
}

/** Resolves when the output is whole; Ctrl-C ends the process and keeps what is there without a gap. */
export async function runLines<L>(command: LinesCommand<L>, flags: LinesFlags): Promise<void> {
  const security = clientSecurity(flags);
  const { lines, name } = command;
  const output = await Output.open(name, flags.output);
  const interrupt = new AbortController();
  process.once("SIGINT", () => interrupt.abort());
  const { signal } = interrupt;
  try {
    const cluster = await startOwn(flags);
    const address = flags.server ?? cluster?.address ?? "";
    const to = { address, output, signal, ...security };
    const all = workAll(command, to, flags.concurrency);
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

/** Where the lines are answered, and which files; `input` says what a line has. */
export function addLines(command: Command, input: string): Command {
  addClientSecurity(addPlacement(command));
  // Workers that see each other end are no news here.
  command.options.find(({ long }) => long === "--log-level")?.default("error");
  command.setOptionValue("logLevel", "error");
  return command
    .option("--model <dir>", "starts a cluster for these lines")
    .option("--workers <count>", "1, 2, 4 or 8", whole, 1)
    .option("--threads <count>", "of each worker", whole)
    .option("--server <host:port>", "a running coordinator instead")
    .option("--concurrency <count>", "requests under way, 1 to 1024", from1(1024), 32)
    .requiredOption("-i, --input <file>", input)
    .requiredOption("-o, --output <file>", "one line for each, in the same order");
}
