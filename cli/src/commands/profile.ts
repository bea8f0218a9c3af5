/** tessera profile: where the time of a prompt and of decoding goes, op by op. */
import { open, rename, rm, type FileHandle } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { SingleBar } from "cli-progress";
import type { Command } from "commander";
import type { KvType } from "@tessera/model";
import type { Profile } from "@tessera/shard-worker/profile";
import { reason } from "../lines/lines.js";
import { sumPhase, type PhaseSums } from "../profile/sums.js";
import { ceilingsText, phaseText } from "../profile/table.js";
import { traceText } from "../profile/trace.js";
import { from1, kvOption, whole } from "./options.js";

interface ProfileFlags {
  model: string;
  batch: number;
  promptLen: number;
  decodeLen: number;
  tiles: number;
  threads: number;
  kv: KvType;
  trace?: string;
  json?: boolean;
}

const MAX_BATCH = 1024;
const MAX_TOKENS = 1 << 20;
/** Each op of each step is kept until the end. */
const MAX_DECODE_STEPS = 1024;
const MAX_THREADS = 1024;

/** Before anything is measured, so that a place that cannot be written costs none. */
async function openTrace(path: string): Promise<FileHandle> {
  return open(`${path}.partial`, "w").catch((cause: unknown) => {
    throw new Error(`profile: trace ${path} cannot be written: ${reason(cause)}`, { cause });
  });
}

/** The profile of `make`; its trace is in `path` when it is whole. */
async function traced(path: string | undefined, make: () => Promise<Profile>): Promise<Profile> {
  if (path === undefined) return make();
  const file = await openTrace(path);
  try {
    const profile = await make();
    for (const text of traceText(profile)) await file.write(text);
    await file.close();
    await rename(`${path}.partial`, path);
    return profile;
  } catch (error) {
    await file.close();
    await rm(`${path}.partial`, { force: true });
    throw error;
  }
}

async function measure(flags: ProfileFlags): Promise<Profile> {
  const { profileModel } = await import("@tessera/shard-worker/profile");
  const { model: modelDir, kv: kvType, batch, promptLen, decodeLen, tiles, threads } = flags;
  const format = "loading {bar} {percentage} %";
  const bar = new SingleBar({ format, noTTYOutput: false, stream: process.stderr });
  bar.start(1, 0);
  try {
    return await profileModel(
      { modelDir, kvType, batch, promptLen, decodeLen, tiles, threads },
      (done, total) => bar.update(total === 0 ? 1 : done / total),
    );
  } finally {
    bar.stop();
  }
}

function textOf(profile: Profile, sums: PhaseSums[]): string {
  const tables = sums.flatMap((phase) => ["", ...phaseText(phase)]);
  return [ceilingsText(profile, profile.ceilings), ...tables].join("\n");
}

async function runProfile(flags: ProfileFlags): Promise<void> {
  const profile = await traced(flags.trace, () => measure(flags));
  const { model, cpu, threads, ceilings, phases } = profile;
  const sums = phases.map((phase) => sumPhase(phase, ceilings));
  const { batch, promptLen, decodeLen, kv } = flags;
  const facts = { model, cpu, threads, kv, batch, promptLen, decodeLen, ceilings };
  const json = flags.json === true;
  const text = json ? JSON.stringify({ ...facts, phases: sums }) : textOf(profile, sums);
  process.stdout.write(`${text}\n`);
}

export function addProfile(program: Command): void {
  program
    .command("profile")
    .description("where the time of prompts and of decoding goes, op by op")
    .requiredOption("--model <dir>", "runs whole in this process")
    .option(
      "--batch <count>",
      `sequences that run together, 1 to ${MAX_BATCH}`,
      from1(MAX_BATCH),
      1,
    )
    .option("--prompt-len <tokens>", "of each sequence", from1(MAX_TOKENS), 512)
    .option(
      "--decode-len <tokens>",
      `steps of one token a sequence, 1 to ${MAX_DECODE_STEPS}`,
      from1(MAX_DECODE_STEPS),
      32,
    )
    .option("--tiles <count>", "encoded before, as of pictures", whole, 0)
    .option("--threads <count>", "default: all cores", from1(MAX_THREADS), availableParallelism())
    .addOption(kvOption())
    .option("--trace <file>", "Chrome trace of every op, for Perfetto or chrome://tracing")
    .option("--json", "one line of JSON")
    .addHelpText(
      "after",
      "\nExample:\n  tessera profile --model models/nvlm-d-tiny --batch 4 --prompt-len 256 --trace ops.json\n",
    )
    .action(async (flags: ProfileFlags) => runProfile(flags));
}
