/** tessera batch: OpenAI batch lines in and out, in input order. */
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { type TesseraClient, toChatCompletion, toGenerateRequest, wantedOf } from "@tessera/client";
import {
  describe,
  fault,
  parseJson,
  readLines,
  type LineFault,
  type RawLine,
} from "../lines/lines.js";
import { addLines, checkSource, runLines, type LinesFlags } from "../lines/run-lines.js";
import { refuseBesideServer } from "./options.js";

interface Line {
  customId: string | null;
  body?: unknown;
  error?: LineFault;
}

const URL = "/v1/chat/completions";

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

async function runBatch(flags: LinesFlags): Promise<void> {
  checkSource("batch", flags);
  const seen = new Set<string>();
  const lines = (await readLines("batch", flags.input)).map((line) => parseLine(line, seen));
  const folder = dirname(resolve(flags.input));
  const open = (client: TesseraClient) =>
    Promise.resolve((line: Line) => answer(client, line, folder));
  await runLines({ name: "batch", lines, open }, flags);
}

export function addBatch(program: Command): void {
  addLines(program.command("batch"), "JSON lines of custom_id, method, url, body")
    .description("a file of OpenAI batch lines, answered in order")
    .addHelpText(
      "after",
      "\nExample:\n  tessera batch --model models/nvlm-d-tiny --workers 2 -i in.jsonl -o out.jsonl\n",
    )
    .action(async (flags: LinesFlags, of: Command) => {
      refuseBesideServer(flags, of);
      await runBatch(flags);
    });
}
