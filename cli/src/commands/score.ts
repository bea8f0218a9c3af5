/** tessera score: log-likelihood and perplexity of given texts, in input order. */
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import type { TesseraClient } from "@tessera/client";
import { describe, readLines, type LineFault } from "../lines/lines.js";
import { addLines, checkSource, runLines, type LinesFlags } from "../lines/run-lines.js";
import { parseScoreLine, type ScoreLine } from "../score/line.js";
import { scoreLine, type LineScore, type Scoring } from "../score/score.js";
import { perplexityOf, summarise, sumTokens, type LineSum } from "../score/sums.js";
import { from1, refuseBesideServer } from "./options.js";

interface ScoreFlags extends LinesFlags {
  tokenizer?: string;
  window?: number;
  stride?: number;
  perToken?: boolean;
}

const MAX_WINDOW = 1 << 20;

/** @throws Error naming flag, value and limit */
export function chooseWindow(
  { window, stride }: { window?: number; stride?: number },
  context: number,
): { window: number; stride: number } {
  // One place of the context is left for the answer that every request makes.
  const limit = context - 1;
  const chosen = window ?? limit;
  if (chosen < 2 || chosen > limit)
    throw new Error(`score: --window is ${chosen}, must be 2 to ${limit} in this context`);
  const step = stride ?? Math.floor(chosen / 2);
  if (step >= chosen)
    throw new Error(`score: --stride is ${step}, must be below the window of ${chosen}`);
  return { window: chosen, stride: step };
}

function numbers({ scores, windows }: LineScore, sum: LineSum, perToken: boolean) {
  const tokens = scores.map(({ tokenId, bytes, logprob }) => ({
    token_id: tokenId,
    token: Buffer.from(bytes).toString("utf8"),
    logprob,
  }));
  return {
    tokens: sum.tokens,
    log_likelihood: sum.logLikelihood,
    perplexity: perplexityOf(sum),
    bytes: sum.bytes,
    windows,
    ...(perToken ? { token_logprobs: tokens } : {}),
  };
}

function failed(line: ScoreLine, error: unknown): LineFault {
  const { message, ...rest } = describe(error);
  return { ...rest, message: `line ${line.number}: ${message}` };
}

/** One line's answer; `noted` is told its sum. */
async function answer(
  line: ScoreLine,
  scoring: Scoring,
  { perToken, noted }: { perToken: boolean; noted: (sum: LineSum) => void },
) {
  const head = { id: line.id, line: line.number };
  if (line.scored === undefined) return { ...head, error: line.error ?? null };
  try {
    const result = await scoreLine(line.scored, scoring);
    const sum = sumTokens(result.scores);
    noted(sum);
    return { ...head, ...numbers(result, sum, perToken), error: null };
  } catch (error) {
    return { ...head, error: failed(line, error) };
  }
}

async function openScoring(client: TesseraClient, flags: ScoreFlags): Promise<Scoring> {
  const { loadTokenizer } = await import("@tessera/coordinator/request");
  const tokenizer = await loadTokenizer(flags.tokenizer ?? flags.model ?? "");
  const { maxModelLen } = await client.getModel();
  const folder = dirname(resolve(flags.input));
  return {
    client,
    tokenizer,
    ...chooseWindow(flags, maxModelLen),
    readFile: (path) => readFile(resolve(folder, path)),
  };
}

async function runScore(flags: ScoreFlags): Promise<void> {
  checkSource("score", flags);
  if (flags.server !== undefined && flags.tokenizer === undefined)
    throw new Error("score: --server needs --tokenizer, the folder of the served model's");
  const lines = (await readLines("score", flags.input)).map(parseScoreLine);
  const sums = new Map<ScoreLine, LineSum>();
  const perToken = flags.perToken === true;
  const open = async (client: TesseraClient) => {
    const scoring = await openScoring(client, flags);
    return (line: ScoreLine) =>
      answer(line, scoring, { perToken, noted: (sum) => sums.set(line, sum) });
  };
  await runLines({ name: "score", lines, open }, flags);
  const summary = summarise(lines.map((line) => sums.get(line)));
  process.stdout.write(`${JSON.stringify(summary)}\n`);
}

export function addScore(program: Command): void {
  addLines(program.command("score"), "JSON lines of text, or token_ids; id, prompt, images")
    .description("log-likelihood and perplexity of the texts of a file")
    .option("--tokenizer <dir>", "of texts (default: --model's)")
    .option(
      "--window <tokens>",
      "computed together at most (default: the context less one)",
      from1(MAX_WINDOW),
    )
    .option(
      "--stride <tokens>",
      "from one window of a long text to the next (default: half the window)",
      from1(MAX_WINDOW),
    )
    .option("--per-token", "each token's log-likelihood beside the sum")
    .addHelpText(
      "after",
      "\nExample:\n  tessera score --model models/nvlm-d-tiny -i texts.jsonl -o scores.jsonl\n",
    )
    .action(async (flags: ScoreFlags, of: Command) => {
      refuseBesideServer(flags, of);
      await runScore(flags);
    });
}
