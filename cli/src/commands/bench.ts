/** tessera bench: measures a running server under load. */
import { InvalidArgumentError, Option, type Command } from "commander";
import { MAX_CONCURRENCY, MAX_LENGTH, MAX_PICTURES, MAX_REQUESTS } from "../bench/limits.js";
import type { BenchFlags } from "../bench/settings.js";
import { addClientSecurity } from "./security-flags.js";
import { above0, from1, whole } from "./options.js";

/** Of a process that Ctrl-C ended. */
const INTERRUPTED = 130;
const MAX_PREFIXES = 100_000;
const MAX_WARMUP = 10_000;
/** setTimeout counts in 31 bits of milliseconds. */
const MAX_SECONDS = 2_000_000;

function share(text: string): number {
  const value = text.trim() === "" ? NaN : Number(text);
  if (!(value >= 0 && value <= 1)) throw new InvalidArgumentError("must be a number, 0 to 1.");
  return value;
}

function seconds(text: string): number {
  const value = above0(text);
  if (value > MAX_SECONDS) throw new InvalidArgumentError(`must be at most ${MAX_SECONDS}.`);
  return value;
}

function upTo(limit: number): (text: string) => number {
  return (text) => {
    const value = whole(text);
    if (value > limit) throw new InvalidArgumentError(`must be at most ${limit}.`);
    return value;
  };
}

function temperature(text: string): number {
  const value = text.trim() === "" ? NaN : Number(text);
  if (!(value >= 0 && value <= 2)) throw new InvalidArgumentError("must be a number, 0 to 2.");
  return value;
}

function addTarget(command: Command): Command {
  command
    .option("--base-url <url>", "an OpenAI-compatible server, as http://127.0.0.1:8000/v1")
    .option("--server <host:port>", "a Tessera cluster over gRPC instead");
  addClientSecurity(command)
    .option("--model <name>", "default: the one that is served, or the first")
    .addOption(
      new Option("--endpoint <name>", "of --base-url: /chat/completions or /completions")
        .choices(["chat", "completions"])
        .default("chat"),
    )
    .addOption(
      new Option("--server-kind <kind>", "which fields beside OpenAI's it knows, as ignore_eos")
        .choices(["auto", "tessera", "vllm", "openai"])
        .default("auto"),
    )
    .option("--extra-body <json>", "fields laid over each body; null takes one away");
  command.addOption(
    new Option(
      "--openai-api-key <key>",
      "of --base-url, where --api-key is not given; never sent to --server",
    ).env("OPENAI_API_KEY"),
  );
  const key = command.options.find(({ long }) => long === "--api-key");
  if (key !== undefined) key.description = "others of this machine see what is on a command line";
  return command;
}

function addLoad(command: Command): Command {
  return command
    .option(
      "--concurrency <count>",
      "closed loop: requests always under way",
      from1(MAX_CONCURRENCY),
    )
    .option(
      "--request-rate <rate>",
      "open loop: requests a second, whatever becomes of earlier ones; inf: all at once (default: inf)",
    )
    .option(
      "--burstiness <shape>",
      "of the gaps' gamma distribution: 1 Poisson, below 1 in bursts, above 1 evenly",
      above0,
      1,
    )
    .option("--num-prompts <count>", "requests of a load (default: 200)", from1(MAX_REQUESTS))
    .option("--duration <seconds>", "no request starts after it", seconds)
    .option("--warmup <count>", "requests before, not counted", upTo(MAX_WARMUP), 8)
    .option("--request-timeout <seconds>", "for a whole answer", seconds, 600)
    .option("--sweep <kind and values...>", "one load each: rates 1,2,4,8 or concurrency 1,2,4,8");
}

function addWorkload(command: Command): Command {
  return command
    .option("--seed <number>", "of prompts, pictures and arrivals", whole, 0)
    .option(
      "--input-len <tokens[:spread]>",
      "of a prompt, its shared beginning and pictures aside",
      "512",
    )
    .option("--output-len <tokens[:spread]>", "of an answer", "128")
    .option("--temperature <number>", "0: the likeliest token", temperature, 0)
    .option("--image-share <share>", "of requests that carry a picture, 0 to 1", share, 0)
    .option("--image-size <sizes>", "WIDTHxHEIGHT, several by comma", "448x448")
    .option("--image-count <count>", "different pictures", from1(MAX_PICTURES), 16)
    .option("--prefix-share <share>", "of requests with a shared beginning, 0 to 1", share, 0)
    .option("--prefix-len <tokens>", "of a shared beginning", upTo(MAX_LENGTH), 0)
    .option("--prefix-count <count>", "different shared beginnings", from1(MAX_PREFIXES), 1)
    .option(
      "--dataset <file>",
      "JSON lines of prompt, output_len, images in place of made prompts",
    );
}

function addOutputs(command: Command): Command {
  return command
    .option("--goodput <limits...>", "milliseconds: ttft:500 tpot:50 itl:100 e2el:5000")
    .option("--json <file>", "settings, environment and every number")
    .option("--details", "with --json: each request")
    .option("--plot <file>", ".svg or .png: latencies, or throughput and goodput of a sweep");
}

const EXAMPLES = [
  "\nExamples:",
  "  tessera bench serve --server 127.0.0.1:4000 --concurrency 8 --num-prompts 100",
  "  tessera bench serve --base-url http://127.0.0.1:8000/v1 --request-rate 4 --goodput ttft:500 itl:100",
  "  tessera bench serve --server 127.0.0.1:4000 --sweep rates 1,2,4,8 --duration 60 \\",
  "    --image-share 0.5 --image-size 448x448,1024x768 --goodput ttft:2000 --json sweep.json --plot sweep.png\n",
].join("\n");

async function serve(flags: BenchFlags): Promise<void> {
  const { readSettings } = await import("../bench/settings.js");
  const { runBench } = await import("../bench/run.js");
  const { server, openaiApiKey } = flags;
  const apiKey = flags.apiKey ?? (server === undefined ? openaiApiKey : undefined);
  const all = apiKey === undefined ? flags : { ...flags, apiKey };
  const settings = readSettings(all);
  const interrupt = new AbortController();
  process.once("SIGINT", () => interrupt.abort());
  const answered = await runBench({
    flags: all,
    settings,
    signal: interrupt.signal,
    print: (text) => void process.stdout.write(text),
    note: (text) => void process.stderr.write(text),
  });
  if (interrupt.signal.aborted) process.exitCode = INTERRUPTED;
  else if (!answered) process.exitCode = 1;
}

export function addBench(program: Command): void {
  const bench = program
    .command("bench")
    .description("measures a running server under load")
    .addHelpText("after", "\nExample:\n  tessera bench help serve\n");
  const command = bench
    .command("serve")
    .description("sends a load to a server and reports latencies, throughput and goodput");
  addOutputs(addWorkload(addLoad(addTarget(command))))
    .addHelpText("after", EXAMPLES)
    .action(serve);
}
